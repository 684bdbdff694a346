// Host programs that want a stream to the guest: from their connection until the device takes over.
//
// A client that comes before the guest's driver is up is closed at once, or, with a hold time, waits for it. At most
// kMaxHeld wait; the wait ends when the guest is there, the time is over, or the client leaves.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "unix_socket.h"
#include "vsock_device.h"

namespace caisson::pod {

class HostClients final : public EventHandler {
 public:
  HostClients(EventLoop& loop, VsockDevice& device, uint64_t hold_ms);
  ~HostClients();

  // Returns 0 or -errno.
  int Listen(const std::string& path);
  void Close();
  // Lets those that wait for the guest through.
  void OnDeviceUsable();

  void OnReady(uint32_t events) override;

 private:
  class Client;

  void AcceptMore();
  void OnLine(Client& client, uint32_t port);
  void Remove(Client& client);

  EventLoop& loop_;
  VsockDevice& device_;
  const uint64_t hold_ms_;
  UnixListener listener_;
  Watch watch_;
  std::list<std::unique_ptr<Client>> clients_;  // in order of arrival
  size_t held_ = 0;
};

}  // namespace caisson::pod
