#include "port_listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace caisson::shim {
namespace {

constexpr int kBacklog = 16;

}  // namespace

int PortListener::Open(const std::string& network) {
  const pod::UniqueFd own(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const pod::UniqueFd of_pod(open(network.c_str(), O_RDONLY | O_CLOEXEC));
  if (!own || !of_pod) return -errno;
  // A socket stays in the namespace that it was made in; this process has one thread, and leaves again at once.
  if (setns(of_pod.get(), CLONE_NEWNET) != 0) return -errno;
  const int error = v4_.Open(AF_INET);
  // Not every node has IPv6.
  if (error == 0) v6_.Open(AF_INET6);
  // Nothing else may ever be opened from inside the pod's network.
  if (setns(own.get(), CLONE_NEWNET) != 0) abort();
  return error;
}

int PortListener::Door::Open(int family) {
  fd_.Reset(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd_) return -errno;
  const int on = 1;
  setsockopt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  int bound = 0;
  if (family == AF_INET) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bound = bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } else {
    setsockopt(fd_.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port_);
    address.sin6_addr = in6addr_loopback;
    bound = bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  if (bound != 0 || listen(fd_.get(), kBacklog) != 0 || !watch_.Start(fd_.get(), EPOLLIN, *this)) {
    const int error = -errno;
    fd_.Reset();
    return error;
  }
  return 0;
}

void PortListener::Door::OnReady(uint32_t) {
  pod::UniqueFd client(accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (client) owner_.OnClient(port_, std::move(client));
}

}  // namespace caisson::shim
