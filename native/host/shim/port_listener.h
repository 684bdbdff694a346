// One TCP port on the loopback of the pod's network namespace: where containerd's PortForward, which knows nothing of a VM,
// looks for the workload. Clients wait here until the daemon has a ticket for them.
#pragma once

#include <cstdint>
#include <string>

#include "event_loop.h"
#include "unique_fd.h"

namespace caisson::shim {

class PortListener final {
 public:
  class Owner {
   public:
    virtual void OnClient(uint16_t port, pod::UniqueFd client) = 0;

   protected:
    ~Owner() = default;
  };

  PortListener(pod::EventLoop& loop, Owner& owner, uint16_t port) : v4_(loop, owner, port), v6_(loop, owner, port) {}
  // Listens on 127.0.0.1 and, where there is one, ::1 of the namespace at `network`. Returns 0 or -errno.
  int Open(const std::string& network);

 private:
  class Door final : public pod::EventHandler {
   public:
    Door(pod::EventLoop& loop, Owner& owner, uint16_t port) : owner_(owner), port_(port), watch_(loop) {}
    int Open(int family);
    void OnReady(uint32_t events) override;

   private:
    Owner& owner_;
    const uint16_t port_;
    pod::UniqueFd fd_;
    pod::Watch watch_;
  };

  Door v4_;
  Door v6_;
};

}  // namespace caisson::shim
