#include "stdio_stream.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "unix_socket.h"

namespace caisson::shim {
namespace {

constexpr int kStreamPort = 1025;
constexpr size_t kMaxHandshakeBytes = 128;
constexpr size_t kChunkBytes = 64 * 1024;

}  // namespace

StdioStream::StdioStream(pod::EventLoop& loop) : handshake_(loop, *this), to_host_(loop, *this), to_guest_(loop, *this) {}

int StdioStream::Open(StreamPlan plan) {
  has_client_ = static_cast<bool>(plan.client);
  if (has_client_) {
    output_.Reset(fcntl(plan.client.get(), F_DUPFD_CLOEXEC, 3));
    if (!output_) return -errno;
    input_ = std::move(plan.client);
  } else if (const int error = OpenFifos(plan); error != 0) {
    return error;
  }
  guest_ = pod::ConnectUnix(plan.vsock);
  if (!guest_) return -errno;
  guest_writer_.Reset(fcntl(guest_.get(), F_DUPFD_CLOEXEC, 3));
  if (!guest_writer_) return -errno;
  const std::string lines = "CONNECT " + std::to_string(kStreamPort) + "\nTICKET " + plan.ticket + "\n";
  // A new connection has room for these few bytes.
  if (send(guest_.get(), lines.data(), lines.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(lines.size())) return -EPIPE;
  return handshake_.Start(guest_.get()) ? 0 : -EIO;
}

int StdioStream::OpenFifos(const StreamPlan& plan) {
  if (!plan.output.empty()) {
    // Read and write: a FIFO held like this neither blocks, nor ends, nor breaks when containerd goes and comes back.
    struct stat status {};
    const bool is_fifo = stat(plan.output.c_str(), &status) == 0 && S_ISFIFO(status.st_mode);
    const int mode = is_fifo ? O_RDWR : O_WRONLY | O_APPEND | O_CREAT;
    output_.Reset(open(plan.output.c_str(), mode | O_NONBLOCK | O_CLOEXEC, 0644));
    if (!output_) return -errno;
  }
  if (!plan.input.empty()) {
    input_.Reset(open(plan.input.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!input_) return -errno;
    // Without a writer of ours, every writer that goes would look like the end of the input.
    held_writer_.Reset(open(plan.input.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    if (!held_writer_) return -errno;
  }
  return 0;
}

void StdioStream::OnAccepted(std::string_view first_bytes) {
  if (!to_host_.Start(guest_.get(), output_ ? output_.get() : -1)) return End();
  if (!first_bytes.empty()) to_host_.Feed(first_bytes);
  if (!ended_ && input_ && !to_guest_.Start(input_.get(), guest_writer_.get())) End();
}

void StdioStream::OnPumpDone() {
  // The guest's end is the end of a process's stream; a client may still have something to say. The end of the input is
  // told to the guest and waited out.
  if (to_host_.done() && (!has_client_ || to_guest_.done())) return End();
  if (to_host_.done()) shutdown(output_.get(), SHUT_WR);
  if (to_guest_.done()) shutdown(guest_writer_.get(), SHUT_WR);
}

void StdioStream::End() { ended_ = true; }

bool StdioStream::Handshake::Start(int fd) {
  fd_ = fd;
  return watch_.Start(fd, EPOLLIN, *this);
}

void StdioStream::Handshake::OnReady(uint32_t) {
  char chunk[1024];
  const ssize_t count = read(fd_, chunk, sizeof chunk);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    watch_.Stop();
    return owner_.End();
  }
  text_.append(chunk, static_cast<size_t>(count));
  const size_t first = text_.find('\n');
  const size_t second = first == std::string::npos ? first : text_.find('\n', first + 1);
  if (second == std::string::npos && text_.size() <= kMaxHandshakeBytes) return;
  watch_.Stop();
  const std::string_view text = text_;
  if (second == std::string::npos || !text.starts_with("OK ") || text.substr(first + 1, second - first) != "OK\n") {
    return owner_.End();
  }
  owner_.OnAccepted(text.substr(second + 1));
}

bool StdioStream::Pump::Start(int from, int to) {
  from_ = from;
  to_ = to;
  reading_now_ = reading_.Start(from, EPOLLIN, *this);
  return reading_now_;
}

void StdioStream::Pump::Feed(std::string_view bytes) {
  pending_.append(bytes);
  Turn();
}

void StdioStream::Pump::OnReady(uint32_t) {
  if (done_) return;
  if (pending_.empty() && !at_end_) Read();
  Turn();
}

void StdioStream::Pump::Read() {
  pending_.resize(kChunkBytes);
  const ssize_t count = read(from_, pending_.data(), pending_.size());
  const int error = errno;
  pending_.resize(count > 0 ? static_cast<size_t>(count) : 0);
  at_end_ = count == 0 || (count < 0 && error != EAGAIN && error != EINTR);
}

// False when it has to wait for room.
bool StdioStream::Pump::Write() {
  size_t written = 0;
  while (to_ >= 0 && written < pending_.size()) {
    const ssize_t count = write(to_, pending_.data() + written, pending_.size() - written);
    if (count > 0) {
      written += static_cast<size_t>(count);
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      pending_.erase(0, written);
      return false;
    }
    at_end_ = true;  // nobody can take it any more
    break;
  }
  pending_.clear();
  return true;
}

void StdioStream::Pump::Turn() {
  if (Write()) {
    writing_.Stop();
    writing_now_ = false;
    if (at_end_) {
      reading_.Stop();
      done_ = true;
      return owner_.OnPumpDone();
    }
    if (!reading_now_) reading_now_ = reading_.Start(from_, EPOLLIN, *this);
    return;
  }
  if (writing_now_) return;
  reading_.Stop();
  reading_now_ = false;
  writing_now_ = writing_.Start(to_, EPOLLOUT, *this);
  if (!writing_now_) {
    done_ = true;
    owner_.OnPumpDone();
  }
}

}  // namespace caisson::shim
