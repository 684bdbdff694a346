// A packet's header over any split into segments, and the credit that packets claim: the first byte says which.
#include "vsock_packet.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "../require.h"
#include "credit.h"

namespace {

using namespace caisson::pod;

// Each segment an allocation of its own, so that a byte beyond it is seen.
struct Segments {
  Segments(const uint8_t* data, size_t size, size_t piece) {
    for (size_t at = 0; at < size; at += piece) {
      const size_t length = std::min(piece, size - at);
      owned.emplace_back(new uint8_t[length]);
      std::memcpy(owned.back().get(), data + at, length);
      list.push_back({owned.back().get(), length});
    }
  }
  size_t Bytes() const {
    size_t total = 0;
    for (const iovec& segment : list) total += segment.iov_len;
    return total;
  }
  std::vector<std::unique_ptr<uint8_t[]>> owned;
  std::vector<iovec> list;
};

void Packet(const uint8_t* data, size_t size) {
  if (size < kPacketHeaderBytes + 1) return;
  const size_t piece = 1 + data[0] % 50;
  ++data;
  --size;
  Segments segments(data, size, piece);
  const PacketHeader taken = TakePacketHeader(segments.list);
  uint8_t encoded[kPacketHeaderBytes];
  EncodePacketHeader(taken, encoded);
  REQUIRE(std::memcmp(encoded, data, kPacketHeaderBytes) == 0);
  TruncateSegments(segments.list, taken.length);
  REQUIRE(segments.Bytes() == std::min<size_t>(taken.length, size - kPacketHeaderBytes));

  // What is put is what is taken, whatever lay there.
  Segments again(data, size, piece);
  std::vector<iovec> skipped = again.list;
  std::vector<iovec> reread = again.list;
  PacketHeader other = taken;
  other.length = ~taken.length;
  PutPacketHeader(other, again.list);
  SkipPacketHeader(skipped);
  REQUIRE(again.Bytes() == size - kPacketHeaderBytes && skipped.size() == again.list.size());
  REQUIRE(TakePacketHeader(reread).length == other.length);
}

void Flow(const uint8_t* data, size_t size) {
  Credit credit(256 * 1024);
  for (size_t at = 0; at + 9 <= size; at += 9) {
    uint32_t first, second;
    std::memcpy(&first, data + at + 1, 4);
    std::memcpy(&second, data + at + 5, 4);
    if (data[at] % 2 == 0) credit.OnPeerState(first, second);
    REQUIRE(data[at] % 2 != 0 || credit.SendWindow() <= first);
    const uint32_t window = credit.SendWindow();
    credit.OnSent(window);
    REQUIRE(credit.SendWindow() == 0);
    REQUIRE(!credit.Accepts(first, second) || uint64_t{first} + second <= credit.buffer_bytes());
    credit.OnForwarded(second);
    if (credit.UpdateDue()) credit.Advertise();
    REQUIRE(!credit.UpdateDue());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  if (data[0] % 4 == 0) {
    Flow(data + 1, size - 1);
  } else {
    Packet(data + 1, size - 1);
  }
  return 0;
}
