// The header of a virtio-vsock packet (virtio 1.2, section 5.10.6). Pure.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <vector>

namespace caisson::pod {

inline constexpr uint32_t kPacketHeaderBytes = 44;
inline constexpr uint32_t kMaxPayloadBytes = 64 * 1024;  // VIRTIO_VSOCK_MAX_PKT_BUF_SIZE of Linux
inline constexpr uint64_t kHostCid = 2;

enum class PacketOp : uint16_t {
  kRequest = 1,
  kResponse = 2,
  kReset = 3,
  kShutdown = 4,
  kData = 5,
  kCreditUpdate = 6,
  kCreditRequest = 7,
};

inline constexpr uint16_t kTypeStream = 1;
inline constexpr uint32_t kShutdownReceive = 1;  // "I will not receive any more"
inline constexpr uint32_t kShutdownSend = 2;     // "I will not send any more"

struct PacketHeader {
  uint64_t source_cid = 0;
  uint64_t destination_cid = 0;
  uint32_t source_port = 0;
  uint32_t destination_port = 0;
  uint32_t length = 0;  // payload bytes
  uint16_t type = kTypeStream;
  uint16_t op = 0;  // as sent; may be no PacketOp
  uint32_t flags = 0;
  uint32_t buffer_bytes = 0;     // buf_alloc: the sender's receive buffer
  uint32_t forwarded_bytes = 0;  // fwd_cnt: what the sender has consumed, modulo 2^32
};

PacketHeader ParsePacketHeader(std::span<const uint8_t, kPacketHeaderBytes> bytes);
void EncodePacketHeader(const PacketHeader& header, std::span<uint8_t, kPacketHeaderBytes> bytes);

// Takes the header off the front of segments in guest memory (once, into our memory) and leaves the rest. The segments
// must hold at least kPacketHeaderBytes.
PacketHeader TakePacketHeader(std::vector<iovec>& segments);

// Writes the header to the front of the segments and leaves the rest. Same requirement.
void PutPacketHeader(const PacketHeader& header, std::vector<iovec>& segments);

// Leaves what follows the header, for when its content is known only after the payload. Same requirement.
void SkipPacketHeader(std::vector<iovec>& segments);

// Cuts segments down to `bytes` in total.
void TruncateSegments(std::vector<iovec>& segments, uint32_t bytes);

}  // namespace caisson::pod
