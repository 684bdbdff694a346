// The back-end's side of one vhost-user conversation: negotiation, memory, rings (QEMU's "Vhost-user Protocol").
//
// Exactly one front-end is served, the VMM this process starts; it connects to a socket that then disappears.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "memory_map.h"
#include "unix_socket.h"
#include "vsock_device.h"

namespace caisson::pod {

class VhostUserServer final : public EventHandler {
 public:
  VhostUserServer(EventLoop& loop, Events& events, VsockDevice& device, uint64_t guest_cid);
  ~VhostUserServer();

  // Returns 0 or -errno.
  int Listen(const std::string& path);
  // The front-end is gone, or broke the protocol (`violated`) and was cut off.
  void OnLost(std::function<void(bool violated)> callback) { on_lost_ = std::move(callback); }

  void OnReady(uint32_t events) override;

 private:
  // Waits for a ring's notifications.
  class KickWatch final : public EventHandler {
   public:
    KickWatch(EventLoop& loop, VsockDevice& device) : watch_(loop), device_(device) {}
    bool Start(int fd);
    void Stop() { watch_.Stop(); }
    void OnReady(uint32_t events) override;

   private:
    Watch watch_;
    VsockDevice& device_;
    int fd_ = -1;
  };

  enum class Received { kAgain, kMessage, kLost };
  static constexpr size_t kRings = 2;

  Received Receive();
  const char* Handle();  // null, or the rule that was broken
  const char* SetMemoryTable(Bytes payload);
  const char* SetRingFd(Request request, Bytes payload);
  const char* GetRingBase(Bytes payload);
  const char* GetConfig(Bytes payload);
  bool ReplyU64(uint64_t value);
  bool Reply(Bytes payload);
  void Resolve(size_t index);
  void StopDevice();
  void StartDeviceIfPossible();
  void Lose(const char* violation);

  EventLoop& loop_;
  Events& events_;
  VsockDevice& device_;
  const uint64_t guest_cid_;
  std::function<void(bool)> on_lost_;

  UnixListener listener_;
  UniqueFd socket_;
  Watch watch_;

  // The message being received.
  std::vector<uint8_t> bytes_;
  std::vector<UniqueFd> fds_;
  MessageHeader header_;

  uint64_t features_ = 0;
  uint64_t protocol_features_ = 0;
  std::unique_ptr<MemoryMap> map_;
  Ring rings_[kRings];
  KickWatch kicks_[kRings];
};

}  // namespace caisson::pod
