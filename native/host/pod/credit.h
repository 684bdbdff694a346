// Credit flow control of one stream (virtio 1.2, section 5.10.6.3). Pure arithmetic; counters wrap at 2^32.
#pragma once

#include <cstdint>

namespace caisson::pod {

class Credit {
 public:
  // `buffer_bytes`: the most this side is ready to hold for the stream.
  explicit Credit(uint32_t buffer_bytes) : buffer_bytes_(buffer_bytes) {}

  // Every packet of the peer states its buffer and how much it has consumed.
  void OnPeerState(uint32_t peer_buffer_bytes, uint32_t peer_forwarded) {
    peer_buffer_bytes_ = peer_buffer_bytes;
    peer_forwarded_ = peer_forwarded;
  }

  // Bytes that may be sent now. Zero, never negative, when the peer claims nonsense.
  uint32_t SendWindow() const {
    const uint32_t in_flight = sent_ - peer_forwarded_;
    return in_flight >= peer_buffer_bytes_ ? 0 : peer_buffer_bytes_ - in_flight;
  }
  void OnSent(uint32_t bytes) { sent_ += bytes; }

  // False when the peer sends more than it was allowed: `held` bytes are queued here already.
  bool Accepts(uint32_t held, uint32_t bytes) const { return held <= buffer_bytes_ && bytes <= buffer_bytes_ - held; }

  // Bytes passed on, or thrown away, so that the peer may send as many again.
  void OnForwarded(uint32_t bytes) { forwarded_ += bytes; }

  // True when the peer should hear of the progress without waiting for a packet that happens to go its way.
  bool UpdateDue() const { return forwarded_ - advertised_ >= buffer_bytes_ / 4; }

  // What goes into the next packet's header; remembers that it was told.
  uint32_t Advertise() { return advertised_ = forwarded_; }
  uint32_t buffer_bytes() const { return buffer_bytes_; }

 private:
  uint32_t buffer_bytes_;
  uint32_t forwarded_ = 0;
  uint32_t advertised_ = 0;
  uint32_t sent_ = 0;
  uint32_t peer_buffer_bytes_ = 0;
  uint32_t peer_forwarded_ = 0;
};

}  // namespace caisson::pod
