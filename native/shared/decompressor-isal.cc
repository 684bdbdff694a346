#include "decompressor-isal.h"

#ifdef CAISSON_ISAL

#include <dlfcn.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "gzip-frame.h"

namespace caisson {

namespace {

struct Functions {
  void (*init)(inflate_state*) = nullptr;
  void (*reset)(inflate_state*) = nullptr;
  int (*inflate)(inflate_state*) = nullptr;
};

// Of the library that the header belongs to; loaded once and kept.
const Functions& Isal() {
  static const Functions functions = [] {
    Functions found;
    void* library = dlopen("libisal.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return found;
    found.init = reinterpret_cast<void (*)(inflate_state*)>(dlsym(library, "isal_inflate_init"));
    found.reset = reinterpret_cast<void (*)(inflate_state*)>(dlsym(library, "isal_inflate_reset"));
    found.inflate = reinterpret_cast<int (*)(inflate_state*)>(dlsym(library, "isal_inflate"));
    return found;
  }();
  return functions;
}

// The library inflates; header and trailer are read here: version 2.30 reads a header that arrives in portions with
// flags left over from elsewhere, and takes more input than it was given.
class IsalGzip final : public Decompressor {
 public:
  explicit IsalGzip(const Functions& functions) : functions_(functions) { functions_.init(&state_); }

  Inflated Push(const uint8_t*& input, size_t& input_left, uint8_t* output, size_t capacity,
                size_t* produced) override {
    *produced = 0;
    state_.next_out = output;
    state_.avail_out = static_cast<uint32_t>(capacity);
    for (;;) {
      if (part_ != Part::kBody && input_left == 0) break;
      if (part_ == Part::kBody && state_.avail_out == 0) return Full(capacity, produced);
      if (part_ == Part::kBody && input_left == 0 && !has_pending_) break;
      if (!Step(input, input_left)) return Inflated::kCorrupt;
    }
    *produced = capacity - state_.avail_out;
    return Inflated::kNeedInput;
  }

  bool AtEnd() const override { return members_seen_ && part_ == Part::kHeader && !within_header_; }

 private:
  enum class Part { kHeader, kBody, kTrailer };

  static constexpr size_t kMaxStep = 1 << 30;
  // Whole bytes that the library may have read ahead of the end of the stream.
  static constexpr size_t kReadAhead = 8;

  Inflated Full(size_t capacity, size_t* produced) const {
    *produced = capacity;
    return Inflated::kOutputFull;
  }

  bool Step(const uint8_t*& input, size_t& input_left) {
    switch (part_) {
      case Part::kHeader:
        within_header_ = true;
        return Header(header_.Push(input, input_left));
      case Part::kBody:
        return Body(input, input_left);
      case Part::kTrailer:
        input_left--;
        return Trailer(*input++);
    }
    return false;
  }

  bool Header(GzipHeader::State state) {
    if (state == GzipHeader::State::kCorrupt) return false;
    if (state == GzipHeader::State::kMore) return true;
    uint8_t* const next_out = state_.next_out;
    const uint32_t room = state_.avail_out;
    functions_.reset(&state_);
    state_.crc_flag = ISAL_GZIP_NO_HDR;
    state_.next_out = next_out;
    state_.avail_out = room;
    recent_size_ = 0;
    has_pending_ = false;
    part_ = Part::kBody;
    return true;
  }

  bool Body(const uint8_t*& input, size_t& input_left) {
    const size_t offered = std::min<size_t>(input_left, kMaxStep);
    const uint32_t room = state_.avail_out;
    state_.next_in = const_cast<uint8_t*>(input);
    state_.avail_in = static_cast<uint32_t>(offered);
    const int status = functions_.inflate(&state_);
    if (status != ISAL_DECOMP_OK && status != ISAL_END_INPUT) return false;
    const bool ended = state_.block_state == ISAL_BLOCK_FINISH;
    if (state_.avail_in > offered) {
      // Newer versions give back at the end what they read ahead, also of an earlier portion.
      const size_t back = state_.avail_in - offered;
      return ended && back <= recent_size_ && End(recent_ + recent_size_ - back, back);
    }
    const size_t taken = offered - state_.avail_in;
    Remember(input, taken);
    input += taken;
    input_left -= taken;
    if (ended) return EndWithReadAhead();
    // Decoded bytes may be held back for want of room: then it is called again without input.
    has_pending_ = state_.avail_out == 0;
    return taken > 0 || room != state_.avail_out || input_left == 0;  // else no progress
  }

  // Version 2.30 keeps what it read ahead, the first byte lowest, above the bits left of the last byte.
  bool EndWithReadAhead() {
    if (state_.read_in_length < 0 || state_.read_in_length > 64) return false;
    const size_t count = static_cast<size_t>(state_.read_in_length) / 8;
    const uint64_t bits = count == 0 ? 0 : state_.read_in >> (state_.read_in_length % 8);
    uint8_t bytes[kReadAhead];
    for (size_t i = 0; i < count; i++) bytes[i] = static_cast<uint8_t>(bits >> (8 * i));
    return End(bytes, count);
  }

  bool End(const uint8_t* ahead, size_t count) {
    part_ = Part::kTrailer;
    trailer_.Reset();
    // At least a bit of the eight bytes belonged to the stream, so they never reach beyond the trailer.
    if (count >= GzipTrailer::kLength) return false;
    for (size_t i = 0; i < count; i++) trailer_.Take(ahead[i]);
    return true;
  }

  bool Trailer(uint8_t byte) {
    trailer_.Take(byte);
    if (!trailer_.complete()) return true;
    if (!trailer_.Matches(state_.crc, state_.total_out)) return false;
    // RFC 1952 2.2: members follow one another; whatever follows and is no member is an error.
    members_seen_ = true;
    within_header_ = false;
    header_.Reset();
    part_ = Part::kHeader;
    return true;
  }

  void Remember(const uint8_t* bytes, size_t length) {
    const size_t fresh = std::min(length, kReadAhead);
    const size_t kept = std::min(recent_size_, kReadAhead - fresh);
    std::memmove(recent_, recent_ + recent_size_ - kept, kept);
    if (fresh > 0) std::memcpy(recent_ + kept, bytes + length - fresh, fresh);
    recent_size_ = kept + fresh;
  }

  const Functions& functions_;
  inflate_state state_;
  GzipHeader header_;
  GzipTrailer trailer_;
  Part part_ = Part::kHeader;
  bool within_header_ = false;
  bool members_seen_ = false;
  bool has_pending_ = false;
  uint8_t recent_[kReadAhead] = {};
  size_t recent_size_ = 0;
};

}  // namespace

std::unique_ptr<Decompressor> MakeIsalDecompressor() {
  const Functions& functions = Isal();
  if (functions.init == nullptr || functions.reset == nullptr || functions.inflate == nullptr) return nullptr;
  return std::unique_ptr<Decompressor>(new (std::nothrow) IsalGzip(functions));
}

}  // namespace caisson

#else

namespace caisson {

std::unique_ptr<Decompressor> MakeIsalDecompressor() { return nullptr; }

}  // namespace caisson

#endif
