#include "host_clients.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

#include "connect_line.h"

namespace caisson::pod {
namespace {

constexpr int kBacklog = 1024;
constexpr int kAcceptsPerTurn = 64;
constexpr size_t kMaxClients = 256;
constexpr size_t kMaxHeld = 64;
constexpr uint64_t kLineLimitMs = 10'000;

}  // namespace

class HostClients::Client final : public EventHandler {
 public:
  Client(EventLoop& loop, HostClients& owner, UniqueFd fd)
      : owner_(owner), fd_(std::move(fd)), watch_(loop), timer_(loop, *this) {
    // Edge-triggered: the line is peeked at until it is complete.
    watch_.Start(fd_.get(), EPOLLIN | EPOLLRDHUP | EPOLLET, *this);
    timer_.Arm(kLineLimitMs);
  }

  void OnReady(uint32_t events) override {
    if (held_) {
      if ((events & (EPOLLHUP | EPOLLERR)) != 0) owner_.Remove(*this);
      return;
    }
    char received[kMaxConnectLineBytes];
    const ssize_t count = recv(fd_.get(), received, sizeof received, MSG_PEEK | MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) return;
    const ConnectLine line = ParseConnectLine({received, count > 0 ? static_cast<size_t>(count) : 0});
    switch (line.status) {
      case ConnectLine::Status::kIncomplete:
        if (count <= 0 || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) owner_.Remove(*this);
        return;
      case ConnectLine::Status::kInvalid:
        return owner_.Remove(*this);
      case ConnectLine::Status::kComplete:
        // Only the line leaves the socket: the bytes behind it belong to the stream.
        if (recv(fd_.get(), received, line.bytes, MSG_DONTWAIT) != static_cast<ssize_t>(line.bytes)) {
          return owner_.Remove(*this);
        }
        // Gone already: no second event would tell.
        if ((events & (EPOLLHUP | EPOLLERR)) != 0) return owner_.Remove(*this);
        return owner_.OnLine(*this, line.port);
    }
  }

  void OnTimer() override { owner_.Remove(*this); }

  void Hold(uint32_t port, uint64_t limit_ms) {
    held_ = true;
    port_ = port;
    timer_.Arm(limit_ms);
  }
  bool held() const { return held_; }
  uint32_t port() const { return port_; }

  UniqueFd TakeFd() {
    watch_.Stop();
    return std::move(fd_);
  }

 private:
  HostClients& owner_;
  UniqueFd fd_;
  Watch watch_;
  Timer timer_;
  bool held_ = false;
  uint32_t port_ = 0;
};

HostClients::HostClients(EventLoop& loop, VsockDevice& device, uint64_t hold_ms)
    : loop_(loop), device_(device), hold_ms_(hold_ms), watch_(loop) {}

HostClients::~HostClients() = default;

int HostClients::Listen(const std::string& path) {
  const int result = listener_.Listen(path, kBacklog);
  if (result == 0) AcceptMore();
  return result;
}

void HostClients::AcceptMore() { watch_.Start(listener_.fd(), EPOLLIN, *this); }

void HostClients::Close() {
  watch_.Stop();
  listener_.Close();
  clients_.clear();
  held_ = 0;
}

void HostClients::OnReady(uint32_t) {
  for (int turn = 0; turn < kAcceptsPerTurn && clients_.size() < kMaxClients; ++turn) {
    UniqueFd fd = listener_.Accept();
    if (!fd) return;
    clients_.push_back(std::make_unique<Client>(loop_, *this, std::move(fd)));
  }
  if (clients_.size() >= kMaxClients) watch_.Stop();  // the rest waits in the backlog
}

void HostClients::OnLine(Client& client, uint32_t port) {
  if (!device_.usable() && hold_ms_ > 0 && held_ < kMaxHeld) {
    ++held_;
    client.Hold(port, hold_ms_);
    return;
  }
  if (device_.usable()) device_.Dial(client.TakeFd(), port);
  Remove(client);
}

void HostClients::OnDeviceUsable() {
  for (auto client = clients_.begin(); client != clients_.end();) {
    if ((*client)->held()) {
      device_.Dial((*client)->TakeFd(), (*client)->port());
      client = clients_.erase(client);
    } else {
      ++client;
    }
  }
  held_ = 0;
  if (clients_.size() < kMaxClients) AcceptMore();
}

void HostClients::Remove(Client& client) {
  if (client.held()) --held_;
  const bool full = clients_.size() >= kMaxClients;
  clients_.remove_if([&](const auto& candidate) { return candidate.get() == &client; });
  if (full) AcceptMore();
}

}  // namespace caisson::pod
