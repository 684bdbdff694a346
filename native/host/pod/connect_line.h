// The first line of a host client: "CONNECT <port>\n", as Firecracker and Cloud Hypervisor spell it. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace caisson::pod {

inline constexpr size_t kMaxConnectLineBytes = 32;

struct ConnectLine {
  enum class Status { kIncomplete, kInvalid, kComplete };
  Status status = Status::kIncomplete;
  size_t bytes = 0;  // length with the newline: what belongs to the line and not to the stream
  uint32_t port = 0;
};

// Judges the bytes received so far; what follows the newline is not looked at.
ConnectLine ParseConnectLine(std::string_view received);

}  // namespace caisson::pod
