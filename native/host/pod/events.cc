#include "events.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace caisson::pod {
namespace {

std::string Quoted(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char character : text) {
    const auto byte = static_cast<unsigned char>(character);
    if (character == '"' || character == '\\') {
      quoted += '\\';
      quoted += character;
    } else if (byte < 0x20) {
      quoted += "\\u00";
      quoted += kHex[byte >> 4];
      quoted += kHex[byte & 15];
    } else {
      quoted += character;
    }
  }
  return quoted += '"';
}

}  // namespace

void Events::Listening(std::string_view vsock_path) {
  Write(R"({"event":"listening","vsock":)" + Quoted(vsock_path) + "}");
}

void Events::VmStarted(int pid) { Write(R"({"event":"vm-started","pid":)" + std::to_string(pid) + "}"); }

void Events::GuestConnected(bool resumed) {
  Write(resumed ? R"({"event":"guest-connected","resumed":true})" : R"({"event":"guest-connected","resumed":false})");
}

void Events::GuestReset() { Write(R"({"event":"guest-reset"})"); }

void Events::ProtocolError(std::string_view part, std::string_view reason) {
  if (protocol_errors_left_ == 0) return;
  --protocol_errors_left_;
  Write(R"({"event":"protocol-error","part":)" + Quoted(part) + R"(,"reason":)" + Quoted(reason) + "}");
}

void Events::VmExit(int status) {
  const bool signalled = WIFSIGNALED(status);
  const int number = signalled ? WTERMSIG(status) : WEXITSTATUS(status);
  Write(std::string(R"({"event":"vm-exit",")") + (signalled ? "signal" : "code") + "\":" + std::to_string(number) + "}");
}

void Events::Write(std::string_view line) {
  const std::string text = std::string(line) + "\n";
  // A reader that does not read must not stop the VM: rather lose the line. Lines are shorter than PIPE_BUF.
  pollfd poll_fd{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
  if (poll(&poll_fd, 1, 0) != 1 || (poll_fd.revents & POLLOUT) == 0) return;
  [[maybe_unused]] const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
}

}  // namespace caisson::pod
