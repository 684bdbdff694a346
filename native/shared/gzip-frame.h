// What stands around the deflate stream of a gzip member (RFC 1952 2.3): a header of variable length and a trailer with
// checksum and size. Taken byte by byte, so that it may arrive in any portions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caisson {

class GzipHeader {
 public:
  enum class State { kMore, kDone, kCorrupt };

  // Consumes bytes up to the end of the header; moves `input` and `input_left` forward.
  State Push(const uint8_t*& input, size_t& input_left);
  void Reset() { *this = GzipHeader(); }

 private:
  enum class Part { kFixed, kExtraLength, kExtra, kName, kComment, kChecksum, kDone };

  State Take(uint8_t byte);
  // The first part, from `part` on, that the flags announce.
  void Enter(Part part);

  Part part_ = Part::kFixed;
  uint8_t flags_ = 0;
  // Bytes of this part, and the number that a part of two bytes holds.
  uint32_t taken_ = 0;
  uint32_t number_ = 0;
  uint32_t checksum_ = 0;
};

class GzipTrailer {
 public:
  static constexpr size_t kLength = 8;

  void Take(uint8_t byte) {
    if (taken_ < 4) {
      checksum_ |= static_cast<uint32_t>(byte) << (8 * taken_);
    } else {
      size_ |= static_cast<uint32_t>(byte) << (8 * (taken_ - 4));
    }
    taken_++;
  }
  bool complete() const { return taken_ == kLength; }
  // `size` modulo 2^32.
  bool Matches(uint32_t checksum, uint32_t size) const { return checksum == checksum_ && size == size_; }
  void Reset() { *this = GzipTrailer(); }

 private:
  size_t taken_ = 0;
  uint32_t checksum_ = 0;
  uint32_t size_ = 0;
};

}  // namespace caisson
