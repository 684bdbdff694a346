// ttrpc frames as the relay sees them: cut out of a byte stream, and marked so that the daemon recognises one that it
// receives again. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caisson::shim {

inline constexpr uint8_t kRequest = 1;
inline constexpr uint8_t kResponse = 2;

struct Frame {
  uint32_t stream = 0;
  uint8_t type = 0;
  std::string_view bytes;  // with its header; valid until the cutter is used again
};

class FrameCutter {
 public:
  enum class Result { kFrame, kIncomplete, kTooLarge };

  void Append(std::string_view bytes) { pending_.append(bytes); }
  Result Next(Frame& frame);

 private:
  std::string pending_;
  size_t taken_ = 0;
};

// A request frame with one more pair of metadata, `caisson-request: mark`. Protobuf concatenates repeated fields, so the
// request itself need not be understood.
std::string MarkRequest(std::string_view frame, std::string_view mark);

}  // namespace caisson::shim
