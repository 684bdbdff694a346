#include "decompressor-isal.h"

#ifdef CAISSON_ISAL

#include <dlfcn.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <new>

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

class IsalGzip final : public Decompressor {
 public:
  explicit IsalGzip(const Functions& functions) : functions_(functions) {
    functions_.init(&state_);
    state_.crc_flag = ISAL_GZIP;
  }

  Inflated Push(const uint8_t*& input, size_t& input_left, uint8_t* output, size_t capacity,
                size_t* produced) override {
    *produced = 0;
    state_.next_out = output;
    state_.avail_out = static_cast<uint32_t>(capacity);
    Inflated result = Inflated::kNeedInput;
    for (;;) {
      if (state_.avail_out == 0) {
        result = Inflated::kOutputFull;
        break;
      }
      if (input_left == 0 && !has_pending_) break;
      if (input_left > 0) within_member_ = true;
      const size_t offered = std::min<size_t>(input_left, kMaxStep);
      const uint32_t room = state_.avail_out;
      state_.next_in = const_cast<uint8_t*>(input);
      state_.avail_in = static_cast<uint32_t>(offered);
      const int status = functions_.inflate(&state_);
      const size_t taken = offered - state_.avail_in;
      input += taken;
      input_left -= taken;
      if (status != ISAL_DECOMP_OK && status != ISAL_END_INPUT) return Inflated::kCorrupt;
      if (state_.block_state == ISAL_BLOCK_FINISH) {
        // RFC 1952 2.2: members follow one another; whatever follows and is no member is an error.
        within_member_ = false;
        members_seen_ = true;
        has_pending_ = false;
        functions_.reset(&state_);
        state_.crc_flag = ISAL_GZIP;
        continue;
      }
      // Decoded bytes may be held back for want of room: then it is called again without input.
      has_pending_ = state_.avail_out == 0;
      if (taken == 0 && room == state_.avail_out && input_left > 0) return Inflated::kCorrupt;  // no progress
    }
    *produced = capacity - state_.avail_out;
    return result;
  }

  bool AtEnd() const override { return members_seen_ && !within_member_; }

 private:
  static constexpr size_t kMaxStep = 1 << 30;

  const Functions& functions_;
  inflate_state state_;
  bool within_member_ = false;
  bool members_seen_ = false;
  bool has_pending_ = false;
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
