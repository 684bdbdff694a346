// Messages of the vhost-user protocol that a vsock back-end needs ("Vhost-user Protocol", QEMU interop documents).
//
// Bytes to values and back, nothing else. Fields are in host byte order on the socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace caisson::pod {

inline constexpr size_t kMessageHeaderBytes = 12;
inline constexpr uint32_t kMaxMessagePayloadBytes = 512;  // the longest known one, a memory table, has 264
inline constexpr size_t kMaxMessageFds = 8;

inline constexpr uint32_t kMessageVersion = 1;  // flags, bits 0 and 1
inline constexpr uint32_t kMessageReply = 4;
inline constexpr uint32_t kMessageNeedReply = 8;

enum class Request : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kResetOwner = 4,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetVringErr = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kGetConfig = 24,
  kSetConfig = 25,
};

struct MessageHeader {
  uint32_t request = 0;  // as sent; may be no Request
  uint32_t flags = 0;
  uint32_t payload_bytes = 0;
};

struct VringState {
  uint32_t index = 0;
  uint32_t number = 0;
};

struct VringAddress {
  uint32_t index = 0;
  uint32_t flags = 0;
  uint64_t descriptors = 0;
  uint64_t used = 0;
  uint64_t avail = 0;
};

// KICK, CALL and ERR: a ring index, and whether a descriptor comes with it.
struct VringFd {
  uint8_t index = 0;
  bool has_fd = false;
};

struct MemoryTableEntry {
  uint64_t guest_address = 0;
  uint64_t size = 0;
  uint64_t user_address = 0;
  uint64_t mmap_offset = 0;
};

struct ConfigRange {
  uint32_t offset = 0;
  uint32_t size = 0;
};

using Bytes = std::span<const uint8_t>;

// Empty for another protocol version, a reply where a request is due, or a payload above the limit.
std::optional<MessageHeader> ParseMessageHeader(std::span<const uint8_t, kMessageHeaderBytes> bytes);

// Empty unless the payload has exactly the form of its request.
std::optional<uint64_t> ParseU64(Bytes payload);
std::optional<VringState> ParseVringState(Bytes payload);
std::optional<VringAddress> ParseVringAddress(Bytes payload);
std::optional<VringFd> ParseVringFd(Bytes payload);
std::optional<std::vector<MemoryTableEntry>> ParseMemoryTable(Bytes payload);
std::optional<ConfigRange> ParseConfigRange(Bytes payload);

// A complete reply message to `request`.
std::vector<uint8_t> EncodeReply(uint32_t request, Bytes payload);

}  // namespace caisson::pod
