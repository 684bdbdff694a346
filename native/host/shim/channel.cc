#include "channel.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace caisson::shim {

bool Channel::Open(pod::UniqueFd fd) {
  Close();
  watched_ = EPOLLIN;
  if (!watch_.Start(fd.get(), watched_, *this)) return false;
  fd_ = std::move(fd);
  paused_ = false;
  return true;
}

void Channel::Close() {
  watch_.Stop();
  fd_.Reset();
  queue_.clear();
}

void Channel::Send(std::string_view bytes) {
  if (!fd_) return;
  const bool was_empty = queue_.empty();
  queue_.append(bytes);
  if (was_empty) Flush();
  Update();
}

void Channel::Pause(bool paused) {
  paused_ = paused;
  Update();
}

void Channel::OnReady(uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    Flush();
    Update();
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  char chunk[32 * 1024];
  const ssize_t count = recv(fd_.get(), chunk, sizeof chunk, 0);
  if (count > 0) return owner_.OnBytes(*this, std::string_view(chunk, static_cast<size_t>(count)));
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  owner_.OnEnd(*this);
}

void Channel::Flush() {
  while (!queue_.empty()) {
    const ssize_t count = send(fd_.get(), queue_.data(), queue_.size(), MSG_NOSIGNAL);
    // A broken connection is noticed where it is read.
    if (count <= 0) return;
    queue_.erase(0, static_cast<size_t>(count));
  }
}

void Channel::Update() {
  if (!fd_) return;
  const uint32_t wanted = (paused_ ? 0U : static_cast<uint32_t>(EPOLLIN)) | (queue_.empty() ? 0U : static_cast<uint32_t>(EPOLLOUT));
  if (wanted == watched_) return;
  watched_ = wanted;
  watch_.Change(wanted);
}

}  // namespace caisson::shim
