// Random descriptor tables, indices and packets: nothing is expected but that the device lives.

#include <cstring>
#include <random>

#include "front_end.h"

namespace hostile {
namespace {

constexpr int kRounds = 3000;

uint64_t SomeAddress(std::mt19937_64& random) {
  switch (random() % 6) {
    case 0:
      return random();
    case 1:
      return kGuestBase + kMemoryBytes - random() % 64;
    default:
      return kGuestBase + random() % kMemoryBytes;
  }
}

uint32_t SomeLength(std::mt19937_64& random) {
  switch (random() % 6) {
    case 0:
      return static_cast<uint32_t>(random());
    case 1:
      return 16 * static_cast<uint32_t>(random() % 20);
    default:
      return static_cast<uint32_t>(random() % 200);
  }
}

void RandomChains(FrontEnd& vmm) {
  std::mt19937_64 random(20261121);
  std::vector<int> clients;
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t ring = random() % 4 == 0 ? 0 : 1;
    for (uint16_t index = 0; index < kSize; ++index) {
      // Mostly sound, or nearly every chain would end at its first descriptor.
      const bool wild = random() % 8 == 0;
      const uint16_t flags = wild ? static_cast<uint16_t>(random() % 8) : static_cast<uint16_t>(random() % 2 * kNext | (ring == 0 ? kWrite : 0));
      const uint16_t next = wild ? static_cast<uint16_t>(random()) : static_cast<uint16_t>(random() % kSize);
      const uint64_t address = wild ? SomeAddress(random) : kGuestBase + kBuffers + random() % 0x10000;
      vmm.SetDescriptor(ring, index, address, wild ? SomeLength(random) : static_cast<uint32_t>(random() % 100), flags, next);
    }
    // Packets that look real, with a live stream's ports now and then.
    for (uint64_t at = kBuffers; at < kBuffers + 0x10000; at += 16) {
      const uint64_t noise = random();
      std::memcpy(vmm.At(at), &noise, sizeof noise);
      Packet packet;
      packet.op = static_cast<uint16_t>(random() % 10);
      packet.source_port = static_cast<uint32_t>(random() % 4);
      packet.destination_port = (1U << 30) + static_cast<uint32_t>(random() % 4);
      packet.length = static_cast<uint32_t>(random() % 80);
      packet.flags = static_cast<uint32_t>(random() % 4);
      if (at % 64 == 0) std::memcpy(vmm.At(at), &packet, kHeaderBytes);
    }
    if (round % 16 == 0) clients.push_back(vmm.DialHost(static_cast<uint32_t>(random() % 4)));
    const auto count = static_cast<uint16_t>(1 + random() % kSize);
    for (uint16_t offered = 0; offered < count; ++offered) vmm.Offer(ring, static_cast<uint16_t>(random() % (random() % 64 == 0 ? 65536 : kSize)));
    if (round % 4 == 0) {
      // Stopping waits until the device has looked at everything before.
      vmm.Stop();
      vmm.Start(random() % 2 == 0 ? kFeatures : kNoEventIndex, random() % 2 == 0 && round % 8 != 0);
    }
  }
  vmm.Stop();
  vmm.Start();
  vmm.ExpectAlive();
}

}  // namespace

std::vector<Case> RandomCases() {
  return {{"random-chains", "three thousand random chains break nothing but themselves", RandomChains}};
}

}  // namespace hostile
