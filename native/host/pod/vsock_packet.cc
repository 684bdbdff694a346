#include "vsock_packet.h"

#include <algorithm>
#include <cstring>

#include "guest_memory.h"

namespace caisson::pod {
namespace {

template <typename Value>
Value Get(const uint8_t* at) {
  Value value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <typename Value>
void Put(uint8_t* at, Value value) {
  std::memcpy(at, &value, sizeof value);
}

// Calls copy(segment, offset, length) for the first kPacketHeaderBytes and removes them from the segments.
template <typename Copy>
void ConsumeHeader(std::vector<iovec>& segments, Copy copy) {
  size_t done = 0, emptied = 0;
  while (done < kPacketHeaderBytes) {
    iovec& segment = segments[emptied];
    const size_t length = std::min(segment.iov_len, kPacketHeaderBytes - done);
    copy(static_cast<uint8_t*>(segment.iov_base), done, length);
    done += length;
    segment.iov_base = static_cast<uint8_t*>(segment.iov_base) + length;
    segment.iov_len -= length;
    if (segment.iov_len == 0) ++emptied;
  }
  segments.erase(segments.begin(), segments.begin() + static_cast<ptrdiff_t>(emptied));
}

}  // namespace

PacketHeader ParsePacketHeader(std::span<const uint8_t, kPacketHeaderBytes> bytes) {
  const uint8_t* at = bytes.data();
  return {
      .source_cid = Get<uint64_t>(at),
      .destination_cid = Get<uint64_t>(at + 8),
      .source_port = Get<uint32_t>(at + 16),
      .destination_port = Get<uint32_t>(at + 20),
      .length = Get<uint32_t>(at + 24),
      .type = Get<uint16_t>(at + 28),
      .op = Get<uint16_t>(at + 30),
      .flags = Get<uint32_t>(at + 32),
      .buffer_bytes = Get<uint32_t>(at + 36),
      .forwarded_bytes = Get<uint32_t>(at + 40),
  };
}

void EncodePacketHeader(const PacketHeader& header, std::span<uint8_t, kPacketHeaderBytes> bytes) {
  uint8_t* at = bytes.data();
  Put(at, header.source_cid);
  Put(at + 8, header.destination_cid);
  Put(at + 16, header.source_port);
  Put(at + 20, header.destination_port);
  Put(at + 24, header.length);
  Put(at + 28, header.type);
  Put(at + 30, header.op);
  Put(at + 32, header.flags);
  Put(at + 36, header.buffer_bytes);
  Put(at + 40, header.forwarded_bytes);
}

PacketHeader TakePacketHeader(std::vector<iovec>& segments) {
  uint8_t bytes[kPacketHeaderBytes];
  ConsumeHeader(segments, [&](const uint8_t* segment, size_t offset, size_t length) {
    CopyFromGuest(bytes + offset, segment, length);
  });
  return ParsePacketHeader(bytes);
}

void PutPacketHeader(const PacketHeader& header, std::vector<iovec>& segments) {
  uint8_t bytes[kPacketHeaderBytes];
  EncodePacketHeader(header, bytes);
  ConsumeHeader(segments, [&](uint8_t* segment, size_t offset, size_t length) {
    std::memcpy(segment, bytes + offset, length);
  });
}

void SkipPacketHeader(std::vector<iovec>& segments) {
  ConsumeHeader(segments, [](const uint8_t*, size_t, size_t) {});
}

void TruncateSegments(std::vector<iovec>& segments, uint32_t bytes) {
  size_t left = bytes, kept = 0;
  for (; kept < segments.size() && left > 0; ++kept) {
    segments[kept].iov_len = std::min(segments[kept].iov_len, left);
    left -= segments[kept].iov_len;
  }
  segments.resize(kept);
}

}  // namespace caisson::pod
