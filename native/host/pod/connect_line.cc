#include "connect_line.h"

#include <charconv>

namespace caisson::pod {

ConnectLine ParseConnectLine(std::string_view received) {
  const size_t newline = received.substr(0, kMaxConnectLineBytes).find('\n');
  if (newline == std::string_view::npos) {
    const bool full = received.size() >= kMaxConnectLineBytes;
    return {.status = full ? ConnectLine::Status::kInvalid : ConnectLine::Status::kIncomplete};
  }
  const ConnectLine invalid{.status = ConnectLine::Status::kInvalid};
  std::string_view text = received.substr(0, newline);
  if (!text.starts_with("CONNECT ") && !text.starts_with("connect ")) return invalid;
  text.remove_prefix(8);
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  uint32_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size()) return invalid;
  if (port == UINT32_MAX) return invalid;  // VMADDR_PORT_ANY, vsock(7)
  return {.status = ConnectLine::Status::kComplete, .bytes = newline + 1, .port = port};
}

}  // namespace caisson::pod
