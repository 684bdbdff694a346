// The pure parts of caisson-pod over arbitrary bytes: what they accept must hold what their headers promise.
//
// The entry point is libFuzzer's, so `clang++ -fsanitize=fuzzer,address` can drive it without driver.cc; the first byte
// chooses the part.

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "connect_line.h"
#include "credit.h"
#include "vhost_user_message.h"
#include "virtqueue.h"
#include "vsock_packet.h"

namespace {

using namespace caisson::pod;

void Require(bool condition) {
  if (!condition) std::abort();
}

void Messages(Bytes bytes) {
  if (bytes.size() >= kMessageHeaderBytes) {
    const auto header = ParseMessageHeader(bytes.first<kMessageHeaderBytes>());
    Require(!header || header->payload_bytes <= kMaxMessagePayloadBytes);
    bytes = bytes.subspan(kMessageHeaderBytes);
  }
  if (const auto table = ParseMemoryTable(bytes)) Require(!table->empty() && table->size() <= kMaxMessageFds);
  if (const auto range = ParseConfigRange(bytes)) Require(range->size <= bytes.size());
  Require(ParseVringAddress(bytes).has_value() == (bytes.size() == 40));
  Require(ParseVringState(bytes).has_value() == (bytes.size() == 8));
  if (ParseVringFd(bytes)) Require(ParseU64(bytes).has_value());
}

void Line(Bytes bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const ConnectLine line = ParseConnectLine(text);
  if (line.status != ConnectLine::Status::kComplete) return;
  Require(line.bytes <= kMaxConnectLineBytes && line.bytes <= text.size() && text[line.bytes - 1] == '\n');
  // What follows the line does not change its meaning.
  Require(ParseConnectLine(text.substr(0, line.bytes)).port == line.port);
}

// A header taken from any split into segments is the one read in one piece, and the rest stays.
void Packet(Bytes bytes) {
  if (bytes.size() < kPacketHeaderBytes + 1) return;
  const size_t piece = 1 + bytes[0] % 50;
  std::vector<uint8_t> data(bytes.begin() + 1, bytes.end());
  std::vector<iovec> segments;
  for (size_t at = 0; at < data.size(); at += piece) {
    segments.push_back({data.data() + at, std::min(piece, data.size() - at)});
  }
  const PacketHeader taken = TakePacketHeader(segments);
  uint8_t encoded[kPacketHeaderBytes];
  EncodePacketHeader(taken, encoded);
  Require(std::memcmp(encoded, data.data(), kPacketHeaderBytes) == 0);
  TruncateSegments(segments, taken.length);
  size_t left = 0;
  for (const iovec& segment : segments) left += segment.iov_len;
  Require(left == std::min<size_t>(taken.length, data.size() - kPacketHeaderBytes));
}

void Flow(Bytes bytes) {
  Credit credit(256 * 1024);
  for (size_t at = 0; at + 9 <= bytes.size(); at += 9) {
    uint32_t first, second;
    std::memcpy(&first, bytes.data() + at + 1, 4);
    std::memcpy(&second, bytes.data() + at + 5, 4);
    if (bytes[at] % 2 == 0) credit.OnPeerState(first, second);
    Require(bytes[at] % 2 != 0 || credit.SendWindow() <= first);
    const uint32_t window = credit.SendWindow();
    credit.OnSent(window);
    Require(credit.SendWindow() == 0);
    Require(!credit.Accepts(first, second) || uint64_t{first} + second <= credit.buffer_bytes());
  }
}

// The input is guest memory with the rings at its front.
void Queue(Bytes bytes) {
  constexpr size_t kBytes = 16 * 1024;
  constexpr uint64_t kBase = 0x4000;
  alignas(16) static uint8_t memory[kBytes];
  std::memset(memory, 0, sizeof memory);
  std::memcpy(memory, bytes.data(), std::min(bytes.size(), kBytes));
  const GuestMemory guest({{.guest_address = kBase, .user_address = 0, .size = kBytes, .host = memory}});
  Virtqueue queue;
  const uint32_t size = 1U << (memory[kBytes - 1] % 6);
  Require(queue.Attach(guest, size, {.descriptors = 0, .used = 1024, .avail = 512}));
  queue.SetFeatures((memory[kBytes - 2] & 1) != 0, (memory[kBytes - 2] & 2) != 0);
  queue.Resume(memory[kBytes - 3]);
  Chain chain;
  for (uint32_t count = 0; queue.Pop(chain) == PopResult::kChain; ++count) {
    Require(count < size);
    uint64_t total = 0;
    for (const auto* segments : {&chain.readable, &chain.writable}) {
      for (const iovec& segment : *segments) {
        const auto* start = static_cast<const uint8_t*>(segment.iov_base);
        Require(start >= memory && segment.iov_len <= static_cast<size_t>(memory + kBytes - start));
        total += segment.iov_len;
      }
    }
    Require(total == uint64_t{chain.readable_bytes} + chain.writable_bytes && total <= kMaxChainBytes);
    Require(chain.readable.size() + chain.writable.size() <= kMaxIndirectEntries);
    // Not Push: it writes into the input, which would let the queue feed itself for ever.
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Bytes bytes(data + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
      Messages(bytes);
      break;
    case 1:
      Line(bytes);
      break;
    case 2:
      Packet(bytes);
      break;
    case 3:
      Flow(bytes);
      break;
    default:
      Queue(bytes);
  }
  return 0;
}
