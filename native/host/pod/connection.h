// One stream between a host socket and a port of the guest.
//
//   asked      a host client dialled; the guest has not answered yet
//   open       bytes go both ways, each direction may end by itself
//   lingering  the guest's side is over; what it sent before still goes to a slow reader
//
// Bytes from the guest that the host socket does not take at once are held here, at most `buffer_bytes`, and count as
// consumed only when the socket took them: that is how a slow reader slows the guest down. Bytes for the guest are
// never held; they stay in the socket until the guest grants credit and offers a buffer.
#pragma once

#include <cstdint>
#include <vector>

#include "credit.h"
#include "event_loop.h"
#include "unique_fd.h"
#include "virtqueue.h"
#include "vsock_packet.h"

namespace caisson::pod {

class Connection;

class ConnectionOwner {
 public:
  // The host's side moved: there may be a packet for the guest, or nothing left to linger for. May delete it.
  virtual void OnHostActivity(Connection& connection) = 0;
  // The guest did not answer in time. May delete it.
  virtual void OnTimeout(Connection& connection) = 0;

 protected:
  ~ConnectionOwner() = default;
};

class Connection final : public EventHandler {
 public:
  enum class State { kAsked, kOpen, kLingering };
  // What a packet means for the connection: go on; end it and tell the guest; end it, the guest knows.
  enum class Verdict { kKeep, kReset, kEnd };

  struct Ports {
    uint32_t host = 0;
    uint32_t guest = 0;
    uint64_t Key() const { return uint64_t{host} << 32 | guest; }
  };

  // `state` is kAsked for a host client that dials, kOpen for a guest program whose request is accepted.
  Connection(EventLoop& loop, ConnectionOwner& owner, UniqueFd host, Ports ports, uint32_t buffer_bytes, State state);
  ~Connection();

  State state() const { return state_; }
  Ports ports() const { return ports_; }
  // The host client left before the guest answered.
  bool abandoned() const { return state_ == State::kAsked && host_gone_; }
  // The guest has heard of this stream, so it must hear of its end.
  bool known_to_guest() const { return !handshake_due_ || state_ != State::kAsked; }
  bool finished_lingering() const { return state_ == State::kLingering && held() == 0; }

  // Takes a packet of the guest; `payload` has exactly header.length bytes and lies in guest memory.
  Verdict OnPacket(const PacketHeader& header, std::vector<iovec>& payload);

  // True while NextPacket would probably produce something.
  bool HasPacket() const;
  // Writes the next packet for the guest into the buffer; bytes written, or 0 when there was nothing after all.
  uint32_t NextPacket(Chain& buffer, uint64_t guest_cid);

  // The guest's side is over. True when bytes for the host remain.
  bool Linger();

  void OnReady(uint32_t events) override;
  void OnTimer() override { owner_.OnTimeout(*this); }

  // Links of the device's ready list.
  Connection* ready_previous = nullptr;
  Connection* ready_next = nullptr;

 private:
  size_t held() const { return held_.size() - held_start_; }
  bool CanRead() const;
  bool SendOkLine();
  void Deliver(std::vector<iovec>& payload, uint32_t length);
  void Hold(const std::vector<iovec>& payload, size_t skip);
  void FlushHeld();
  void OnGuestShutdown(uint32_t flags);
  void OnHostGone();
  void UpdateWatch();
  uint32_t ReadInto(Chain& buffer);

  ConnectionOwner& owner_;
  UniqueFd host_;
  Watch watch_;
  Timer timer_;
  Ports ports_;
  State state_;
  Credit credit_;
  std::vector<uint8_t> held_;
  size_t held_start_ = 0;
  bool watching_started_ = false;
  bool watching_writable_ = false;

  bool host_readable_ = false;  // until a read says otherwise: the watch is edge-triggered
  bool host_eof_ = false;       // the host will not send any more
  bool host_gone_ = false;      // the host will not receive any more
  bool handshake_due_ = true;   // REQUEST or RESPONSE, by state
  bool credit_asked_ = false;
  uint32_t guest_shutdown_ = 0;  // kShutdown… flags, cumulative: what the guest told us,
  uint32_t due_shutdown_ = 0;    // what it must be told,
  uint32_t told_shutdown_ = 0;   // and what it was told
};

}  // namespace caisson::pod
