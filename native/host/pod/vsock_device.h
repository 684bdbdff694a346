// The virtio-vsock device: packets of the guest's two rings to and from the streams (virtio 1.2, section 5.10).
//
// Host programs dial through Dial(); a guest program that dials port P of CID 2 reaches the Unix socket `<path>_<P>`.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "connection.h"
#include "events.h"
#include "ready_list.h"
#include "ring.h"

namespace caisson::pod {

class VsockDevice final : public ConnectionOwner {
 public:
  VsockDevice(EventLoop& loop, Events& events, uint64_t guest_cid, std::string vsock_path);

  // The guest's driver is ready, or goes on after a pause: both look alike, and only the rings' positions tell whether
  // the streams of before still exist. The rings must stay until Stop().
  void Start(Ring& receive, Ring& transmit);
  // The rings stop; streams freeze and wait for the next Start().
  void Stop();
  bool started() const { return receive_ != nullptr; }
  // Started and not broken: requests can be sent.
  bool usable() const { return started() && !broken_; }
  // Called after each Start() when the device is usable.
  void OnUsable(std::function<void()> callback) { on_usable_ = std::move(callback); }

  // The guest notified one of the rings.
  void OnKick();
  // Does a bounded amount of work; true when more can be done at once.
  bool Serve();

  // Connects a host client to a port of the guest; closes the socket when that cannot be. Only while usable.
  void Dial(UniqueFd host, uint32_t guest_port);

  // Ends all streams; held bytes still go to their readers.
  void EndAll();
  bool lingering() const { return !lingering_.empty(); }

  void OnHostActivity(Connection& connection) override;
  void OnTimeout(Connection& connection) override;

 private:
  struct ResetPacket {
    uint64_t source_cid;
    Connection::Ports ports;
    uint16_t type;
  };

  bool ServeTransmit();
  bool ServeReceive();
  void OnPacket();
  void OnRequest(const PacketHeader& header, Connection::Ports ports);
  void Reject(const PacketHeader& header);
  Connection* Add(UniqueFd host, Connection::Ports ports, Connection::State state);
  void End(Connection& connection, bool reset);
  bool Full() const;
  void Break(Ring& ring);

  EventLoop& loop_;
  Events& events_;
  const uint64_t guest_cid_;
  const std::string vsock_path_;
  std::function<void()> on_usable_;

  Ring* receive_ = nullptr;   // the guest's: we write
  Ring* transmit_ = nullptr;  // we read
  bool ever_started_ = false;
  bool broken_ = false;
  bool transmit_pending_ = false;
  bool receive_starved_ = false;
  Chain chain_;

  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;  // by Ports::Key
  std::unordered_map<Connection*, std::unique_ptr<Connection>> lingering_;
  ReadyList ready_;
  std::deque<ResetPacket> resets_;
  uint32_t next_host_port_;
};

}  // namespace caisson::pod
