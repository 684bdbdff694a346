// A guest's memory with rings in it, walked as the device walks them. Two regions in allocations of their own, so that a
// byte beyond either is seen. The device writes where the guest allows it: also into the rings.
//
// Input: log2 of the size and whether addresses follow, features, first position, then memory.
#include "virtqueue.h"

#include <algorithm>
#include <memory>

#include "../require.h"

namespace {

using namespace caisson::pod;

constexpr size_t kRegion = 2048;
constexpr uint64_t kGuest[] = {0x4000, 0x8000};
constexpr uint64_t kUser[] = {0x10000, 0x20000};
// Chains the guest may feed the device by letting it write into the rings.
constexpr int kMaxChains = 64;

struct Input {
  const uint8_t* data;
  size_t left;

  template <typename Value>
  Value Take() {
    Value value = 0;
    Copy(reinterpret_cast<uint8_t*>(&value), sizeof value);
    return value;
  }
  void Copy(uint8_t* to, size_t length) {
    const size_t taken = std::min(length, left);
    if (taken > 0) std::memcpy(to, data, taken);
    data += taken;
    left -= taken;
  }
};

bool Inside(const iovec& segment, const uint8_t* region) {
  const auto* start = static_cast<const uint8_t*>(segment.iov_base);
  return start >= region && start < region + kRegion && segment.iov_len <= static_cast<size_t>(region + kRegion - start);
}

void CheckChain(const Chain& chain, const uint8_t* first, const uint8_t* second) {
  uint64_t total = 0;
  for (const auto* segments : {&chain.readable, &chain.writable}) {
    for (const iovec& segment : *segments) {
      REQUIRE(Inside(segment, first) || Inside(segment, second));
      total += segment.iov_len;
    }
  }
  REQUIRE(total == uint64_t{chain.readable_bytes} + chain.writable_bytes && total <= kMaxChainBytes);
  REQUIRE(chain.readable.size() + chain.writable.size() <= kMaxIndirectEntries);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input{data, size};
  const auto shape = input.Take<uint8_t>();
  const auto features = input.Take<uint8_t>();
  const auto position = input.Take<uint8_t>();
  RingAddresses addresses{.descriptors = kUser[0], .used = kUser[0] + 1024, .avail = kUser[0] + 512};
  uint32_t entries = 1U << (shape % 6);
  if ((shape & 0x80) != 0) {
    entries = input.Take<uint16_t>();
    addresses.descriptors = kUser[0] + input.Take<uint16_t>();
    addresses.used = kUser[0] + input.Take<uint32_t>();
    addresses.avail = input.Take<uint64_t>();
  }
  const std::unique_ptr<uint8_t[]> first(new uint8_t[kRegion]()), second(new uint8_t[kRegion]());
  input.Copy(first.get(), kRegion);
  input.Copy(second.get(), kRegion);
  const GuestMemory memory({
      {.guest_address = kGuest[0], .user_address = kUser[0], .size = kRegion, .host = first.get()},
      {.guest_address = kGuest[1], .user_address = kUser[1], .size = kRegion, .host = second.get()},
  });

  Virtqueue queue;
  if (!queue.Attach(memory, entries, addresses)) {
    REQUIRE(!queue.attached());
    return 0;
  }
  queue.SetFeatures((features & 1) != 0, (features & 2) != 0);
  queue.Resume(position);
  Chain chain;
  for (int taken = 0; taken < kMaxChains; ++taken) {
    const PopResult result = queue.Pop(chain);
    REQUIRE((result == PopResult::kBroken) == (queue.fault() != nullptr));
    if (result == PopResult::kBroken) REQUIRE(queue.Pop(chain) == PopResult::kBroken);
    if (result != PopResult::kChain) break;
    CheckChain(chain, first.get(), second.get());
    if ((features & 4) != 0) {
      for (const iovec& segment : chain.writable) std::memset(segment.iov_base, features, segment.iov_len);
    }
    queue.Push(chain.head, chain.writable_bytes);
    (void)queue.TakeInterruptDecision();
    (void)queue.AskForKick();
  }
  return 0;
}
