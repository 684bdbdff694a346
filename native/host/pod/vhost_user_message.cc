#include "vhost_user_message.h"

#include <cstring>

namespace caisson::pod {
namespace {

template <typename Value>
Value Get(Bytes bytes, size_t offset) {
  Value value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

constexpr uint64_t kVringIndexMask = 0xff;
constexpr uint64_t kVringNoFd = 0x100;
constexpr size_t kMemoryTableHeaderBytes = 8;
constexpr size_t kMemoryTableEntryBytes = 32;
constexpr size_t kConfigHeaderBytes = 12;

}  // namespace

std::optional<MessageHeader> ParseMessageHeader(std::span<const uint8_t, kMessageHeaderBytes> bytes) {
  const MessageHeader header{
      .request = Get<uint32_t>(bytes, 0),
      .flags = Get<uint32_t>(bytes, 4),
      .payload_bytes = Get<uint32_t>(bytes, 8),
  };
  if ((header.flags & 3) != kMessageVersion || (header.flags & kMessageReply) != 0) return std::nullopt;
  if (header.payload_bytes > kMaxMessagePayloadBytes) return std::nullopt;
  return header;
}

std::optional<uint64_t> ParseU64(Bytes payload) {
  if (payload.size() != 8) return std::nullopt;
  return Get<uint64_t>(payload, 0);
}

std::optional<VringState> ParseVringState(Bytes payload) {
  if (payload.size() != 8) return std::nullopt;
  return VringState{.index = Get<uint32_t>(payload, 0), .number = Get<uint32_t>(payload, 4)};
}

std::optional<VringAddress> ParseVringAddress(Bytes payload) {
  if (payload.size() != 40) return std::nullopt;
  // The used ring's address comes before the avail ring's; the last eight bytes are a log address.
  return VringAddress{
      .index = Get<uint32_t>(payload, 0),
      .flags = Get<uint32_t>(payload, 4),
      .descriptors = Get<uint64_t>(payload, 8),
      .used = Get<uint64_t>(payload, 16),
      .avail = Get<uint64_t>(payload, 24),
  };
}

std::optional<VringFd> ParseVringFd(Bytes payload) {
  const std::optional<uint64_t> value = ParseU64(payload);
  if (!value || (*value & ~(kVringIndexMask | kVringNoFd)) != 0) return std::nullopt;
  return VringFd{.index = static_cast<uint8_t>(*value & kVringIndexMask), .has_fd = (*value & kVringNoFd) == 0};
}

std::optional<std::vector<MemoryTableEntry>> ParseMemoryTable(Bytes payload) {
  if (payload.size() < kMemoryTableHeaderBytes) return std::nullopt;
  const uint32_t count = Get<uint32_t>(payload, 0);
  if (count == 0 || count > kMaxMessageFds) return std::nullopt;
  if (payload.size() != kMemoryTableHeaderBytes + kMemoryTableEntryBytes * count) return std::nullopt;
  std::vector<MemoryTableEntry> entries;
  for (uint32_t index = 0; index < count; ++index) {
    const size_t at = kMemoryTableHeaderBytes + kMemoryTableEntryBytes * index;
    entries.push_back({
        .guest_address = Get<uint64_t>(payload, at),
        .size = Get<uint64_t>(payload, at + 8),
        .user_address = Get<uint64_t>(payload, at + 16),
        .mmap_offset = Get<uint64_t>(payload, at + 24),
    });
  }
  return entries;
}

std::optional<ConfigRange> ParseConfigRange(Bytes payload) {
  if (payload.size() < kConfigHeaderBytes) return std::nullopt;
  const ConfigRange range{.offset = Get<uint32_t>(payload, 0), .size = Get<uint32_t>(payload, 4)};
  if (payload.size() - kConfigHeaderBytes != range.size) return std::nullopt;
  return range;
}

std::vector<uint8_t> EncodeReply(uint32_t request, Bytes payload) {
  const uint32_t header[3] = {request, kMessageVersion | kMessageReply, static_cast<uint32_t>(payload.size())};
  static_assert(sizeof header == kMessageHeaderBytes);
  std::vector<uint8_t> message(kMessageHeaderBytes + payload.size());
  std::memcpy(message.data(), header, kMessageHeaderBytes);
  if (!payload.empty()) std::memcpy(message.data() + kMessageHeaderBytes, payload.data(), payload.size());
  return message;
}

}  // namespace caisson::pod
