#include "gzip-frame.h"

#include <zlib.h>

namespace caisson {

namespace {

constexpr uint8_t kHeaderChecksum = 0x02;
constexpr uint8_t kExtra = 0x04;
constexpr uint8_t kName = 0x08;
constexpr uint8_t kComment = 0x10;
constexpr uint8_t kReserved = 0xe0;
constexpr uint32_t kFixedLength = 10;
constexpr uint8_t kDeflate = 8;

}  // namespace

GzipHeader::State GzipHeader::Push(const uint8_t*& input, size_t& input_left) {
  while (input_left > 0) {
    const uint8_t byte = *input++;
    input_left--;
    const State state = Take(byte);
    if (state != State::kMore) return state;
  }
  return State::kMore;
}

GzipHeader::State GzipHeader::Take(uint8_t byte) {
  const uint32_t at = taken_++;
  if (part_ != Part::kChecksum) checksum_ = static_cast<uint32_t>(crc32(checksum_, &byte, 1));
  switch (part_) {
    case Part::kFixed:
      if ((at == 0 && byte != 0x1f) || (at == 1 && byte != 0x8b) || (at == 2 && byte != kDeflate)) return State::kCorrupt;
      if (at == 3) flags_ = byte;
      // RFC 1952 2.3.1.2: with a reserved flag set the rest may mean something else.
      if ((flags_ & kReserved) != 0) return State::kCorrupt;
      if (taken_ == kFixedLength) Enter(Part::kExtraLength);
      break;
    case Part::kExtraLength:
      number_ |= static_cast<uint32_t>(byte) << (8 * at);
      if (taken_ == 2) {
        taken_ = 0;
        if (number_ == 0) {
          Enter(Part::kName);
        } else {
          part_ = Part::kExtra;
        }
      }
      break;
    case Part::kExtra:
      if (taken_ == number_) Enter(Part::kName);
      break;
    case Part::kName:
      if (byte == 0) Enter(Part::kComment);
      break;
    case Part::kComment:
      if (byte == 0) Enter(Part::kChecksum);
      break;
    case Part::kChecksum:
      number_ |= static_cast<uint32_t>(byte) << (8 * at);
      if (taken_ == 2) {
        if (number_ != (checksum_ & 0xffff)) return State::kCorrupt;
        part_ = Part::kDone;
      }
      break;
    case Part::kDone:
      return State::kCorrupt;
  }
  return part_ == Part::kDone ? State::kDone : State::kMore;
}

void GzipHeader::Enter(Part part) {
  taken_ = 0;
  number_ = 0;
  part_ = part;
  if (part_ == Part::kExtraLength && (flags_ & kExtra) == 0) part_ = Part::kName;
  if (part_ == Part::kName && (flags_ & kName) == 0) part_ = Part::kComment;
  if (part_ == Part::kComment && (flags_ & kComment) == 0) part_ = Part::kChecksum;
  if (part_ == Part::kChecksum && (flags_ & kHeaderChecksum) == 0) part_ = Part::kDone;
}

}  // namespace caisson
