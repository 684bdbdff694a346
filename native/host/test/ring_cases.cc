// Rings that break rules of virtio 1.2, section 2.7. After each, the device must serve a newly started driver.

#include <cstring>

#include "front_end.h"

namespace hostile {
namespace {

constexpr uint64_t kAt = kGuestBase + kBuffers;
constexpr uint64_t kTable = kBuffers + 0x8000;  // offset of indirect tables

void BrokenThenAlive(FrontEnd& vmm, uint32_t ring = 1) {
  vmm.ExpectBroken(ring);
  vmm.Stop();
  vmm.Start();
  vmm.ExpectAlive();
}

void OfferOne(FrontEnd& vmm, uint64_t address, uint32_t length, uint16_t flags, uint16_t next = 0) {
  vmm.SetDescriptor(1, 0, address, length, flags, next);
  vmm.Offer(1, 0);
  BrokenThenAlive(vmm);
}

// Offers an indirect table of these entries.
struct Entry {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
void OfferTable(FrontEnd& vmm, const std::vector<Entry>& entries) {
  for (size_t index = 0; index < entries.size(); ++index) {
    const Entry& entry = entries[index];
    FrontEnd::WriteDescriptor(vmm.At(kTable + 16 * index), entry.address, entry.length, entry.flags, entry.next);
  }
  vmm.SetDescriptor(1, 0, kGuestBase + kTable, static_cast<uint32_t>(16 * entries.size()), kIndirect);
  vmm.Offer(1, 0);
}

void AvailJump(FrontEnd& vmm) {
  vmm.SetAvailIndex(1, kSize + 1);
  vmm.Kick(1);
  BrokenThenAlive(vmm);
}
void AvailBackwards(FrontEnd& vmm) {
  vmm.SetAvailIndex(1, 0xffff);
  vmm.Kick(1);
  BrokenThenAlive(vmm);
}
void HeadOutside(FrontEnd& vmm) {
  vmm.Offer(1, kSize);
  BrokenThenAlive(vmm);
}
void ReceiveHeadOutside(FrontEnd& vmm) {
  const int fd = vmm.DialHost(1);  // something to send, or the ring is not looked at
  vmm.Offer(0, 0xffff);
  vmm.ExpectBroken(0);
  ExpectEnd(fd);
  vmm.Stop();
  vmm.Start();
  vmm.ExpectAlive();
}
void NextOutside(FrontEnd& vmm) { OfferOne(vmm, kAt, 44, kNext, kSize); }
void SelfLoop(FrontEnd& vmm) { OfferOne(vmm, kAt, 44, kNext, 0); }
void ZeroLengthLoop(FrontEnd& vmm) { OfferOne(vmm, kAt, 0, kNext, 0); }
void Loop(FrontEnd& vmm) {
  vmm.SetDescriptor(1, 1, kAt, 1, kNext, 2);
  vmm.SetDescriptor(1, 2, kAt, 1, kNext, 1);
  OfferOne(vmm, kAt, 44, kNext, 1);
}
void AddressOutside(FrontEnd& vmm) { OfferOne(vmm, kGuestBase + kMemoryBytes, 44, 0); }
void AddressBelow(FrontEnd& vmm) { OfferOne(vmm, kGuestBase - 1, 44, 0); }
void LengthPastEnd(FrontEnd& vmm) { OfferOne(vmm, kGuestBase + kMemoryBytes - 43, 44, 0); }
void AddressWraps(FrontEnd& vmm) { OfferOne(vmm, ~uint64_t{7}, 64, 0); }
void HugeLength(FrontEnd& vmm) { OfferOne(vmm, kAt, 0xffffffff, 0); }
void UserAddress(FrontEnd& vmm) { OfferOne(vmm, kUserBase + kBuffers, 44, 0); }
void ReadableAfterWritable(FrontEnd& vmm) {
  vmm.SetDescriptor(1, 1, kAt, 44, 0);
  OfferOne(vmm, kAt, 44, kWrite | kNext, 1);
}
void ChainTooLong(FrontEnd& vmm) {
  for (uint16_t index = 0; index < kSize; ++index) {
    vmm.SetDescriptor(1, index, kAt, 128 * 1024, index + 1 < kSize ? kNext : 0, static_cast<uint16_t>(index + 1));
  }
  vmm.Offer(1, 0);
  BrokenThenAlive(vmm);
}
void IndirectEmpty(FrontEnd& vmm) { OfferOne(vmm, kAt, 0, kIndirect); }
void IndirectOddLength(FrontEnd& vmm) { OfferOne(vmm, kAt, 24, kIndirect); }
void IndirectTooMany(FrontEnd& vmm) { OfferOne(vmm, kAt, 1025 * 16, kIndirect); }
void IndirectOutside(FrontEnd& vmm) { OfferOne(vmm, kGuestBase + kMemoryBytes - 16, 32, kIndirect); }
void IndirectWithNext(FrontEnd& vmm) { OfferOne(vmm, kAt, 16, kIndirect | kNext, 1); }
void IndirectNotFirst(FrontEnd& vmm) {
  vmm.SetDescriptor(1, 1, kAt, 16, kIndirect);
  OfferOne(vmm, kAt, 44, kNext, 1);
}
void IndirectNested(FrontEnd& vmm) {
  OfferTable(vmm, {{kAt, 16, kIndirect, 0}});
  BrokenThenAlive(vmm);
}
void IndirectNextOutside(FrontEnd& vmm) {
  OfferTable(vmm, {{kAt, 44, kNext, 1}});
  BrokenThenAlive(vmm);
}
void IndirectLoop(FrontEnd& vmm) {
  OfferTable(vmm, {{kAt, 44, kNext, 1}, {kAt, 1, kNext, 0}});
  BrokenThenAlive(vmm);
}
void IndirectNotNegotiated(FrontEnd& vmm) {
  vmm.Stop();
  vmm.Start(kNoIndirect);
  OfferTable(vmm, {{kAt, 44, 0, 0}});
  BrokenThenAlive(vmm);
}

// Chains that are sound but are no packets go back unused, and the ring goes on.
void OfferAndGoOn(FrontEnd& vmm, uint32_t ring) {
  const uint16_t position = vmm.avail(ring);
  vmm.Offer(ring, 0);
  vmm.WaitUsed(ring, vmm.avail(ring));
  Expect(vmm.UsedLength(ring, position) == 0, "a length for an unused chain");
}
void TransmitShort(FrontEnd& vmm) {
  vmm.SetDescriptor(1, 0, kAt, 43, 0);
  OfferAndGoOn(vmm, 1);
  vmm.ExpectAlive();
}
void TransmitWritable(FrontEnd& vmm) {
  vmm.SetDescriptor(1, 0, kAt, 64, kWrite);
  OfferAndGoOn(vmm, 1);
  vmm.ExpectAlive();
}
void ReceiveUnusable(FrontEnd& vmm, uint32_t length, uint16_t flags) {
  const int fd = vmm.DialHost(77);
  vmm.SetDescriptor(0, 0, kAt, length, flags);
  OfferAndGoOn(vmm, 0);
  Expect(vmm.TakeOp(kRequest).destination_port == 77, "the request waited for a good buffer");
  (void)fd;
}
void ReceiveReadable(FrontEnd& vmm) { ReceiveUnusable(vmm, 4096, 0); }
void ReceiveShort(FrontEnd& vmm) { ReceiveUnusable(vmm, 43, kWrite); }
void ReceiveNoPayloadRoom(FrontEnd& vmm) {
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  WriteAll(fd, "x");
  vmm.SetDescriptor(0, 0, kAt, 44, kWrite);
  vmm.Offer(0, 0);  // good for a control packet only; stays with the device or is used for one
  vmm.Stop();
  vmm.Start();
  vmm.ExpectAlive();
}
void ScatteredHeader(FrontEnd& vmm) {
  Packet packet;
  packet.source_port = 1;
  packet.destination_port = 2;
  packet.op = kResponse;
  std::memcpy(vmm.At(kBuffers), &packet, kHeaderBytes);
  std::vector<Entry> entries;
  for (uint16_t index = 0; index < kHeaderBytes; ++index) {
    const uint16_t next = index + 1;
    entries.push_back({kAt + index, 1, static_cast<uint16_t>(next < kHeaderBytes ? kNext : 0), next});
  }
  OfferTable(vmm, entries);
  vmm.WaitUsed(1, vmm.avail(1));
  const Packet reset = vmm.TakeOp(kReset);
  Expect(reset.source_port == 2 && reset.destination_port == 1, "the header was put together wrongly");
  vmm.ExpectAlive();
}
void EventIndexOff(FrontEnd& vmm) {
  vmm.Stop();
  vmm.Start(kNoEventIndex);
  for (int round = 0; round < 20; ++round) vmm.ExpectAlive();
}
void IndexWraps(FrontEnd& vmm) {
  Packet packet;
  packet.op = kReset;  // costs the device nothing and is never answered
  for (int round = 0; round < 66'000; ++round) {
    if (round < 8 || round > 65'500) {
      vmm.Transmit(packet);
    } else {
      vmm.Offer(1, 0, 8);
      vmm.WaitUsed(1, vmm.avail(1));
      round += 7;
    }
  }
  vmm.ExpectAlive();
}

}  // namespace

std::vector<Case> RingCases() {
  return {
      {"avail-jump", "an avail index beyond the ring breaks it", AvailJump},
      {"avail-backwards", "an avail index that runs backwards breaks the ring", AvailBackwards},
      {"head-outside", "a head outside the table breaks the ring", HeadOutside},
      {"receive-head-outside", "a bad receive ring ends the streams that wait for it", ReceiveHeadOutside},
      {"next-outside", "a successor outside the table breaks the ring", NextOutside},
      {"self-loop", "a descriptor that follows itself breaks the ring", SelfLoop},
      {"zero-length-loop", "a loop of empty descriptors ends", ZeroLengthLoop},
      {"loop", "a loop of two descriptors ends", Loop},
      {"address-outside", "a buffer behind memory breaks the ring", AddressOutside},
      {"address-below", "a buffer before memory breaks the ring", AddressBelow},
      {"length-past-end", "a buffer that leaves memory breaks the ring", LengthPastEnd},
      {"address-wraps", "a buffer that wraps around the address space breaks the ring", AddressWraps},
      {"huge-length", "a buffer of 4 GiB breaks the ring", HugeLength},
      {"user-address", "a buffer at an address of the VMM breaks the ring", UserAddress},
      {"readable-after-writable", "a readable buffer after a writable one breaks the ring", ReadableAfterWritable},
      {"chain-too-long", "a chain above one MiB breaks the ring", ChainTooLong},
      {"indirect-empty", "an empty indirect table breaks the ring", IndirectEmpty},
      {"indirect-odd-length", "an indirect table of half an entry breaks the ring", IndirectOddLength},
      {"indirect-too-many", "an indirect table above 1024 entries breaks the ring", IndirectTooMany},
      {"indirect-outside", "an indirect table that leaves memory breaks the ring", IndirectOutside},
      {"indirect-with-next", "an indirect descriptor with a successor breaks the ring", IndirectWithNext},
      {"indirect-not-first", "an indirect descriptor within a chain breaks the ring", IndirectNotFirst},
      {"indirect-nested", "an indirect table inside another breaks the ring", IndirectNested},
      {"indirect-next-outside", "a successor outside an indirect table breaks the ring", IndirectNextOutside},
      {"indirect-loop", "a loop inside an indirect table ends", IndirectLoop},
      {"indirect-not-negotiated", "an indirect table that was not negotiated breaks the ring", IndirectNotNegotiated},
      {"transmit-short", "a chain shorter than a header is returned unused", TransmitShort},
      {"transmit-writable", "a writable chain on the transmit ring is returned unused", TransmitWritable},
      {"receive-readable", "a readable buffer on the receive ring is returned unused", ReceiveReadable},
      {"receive-short", "a receive buffer shorter than a header is returned unused", ReceiveShort},
      {"receive-no-payload-room", "a receive buffer without room for payload stalls nothing else", ReceiveNoPayloadRoom},
      {"scattered-header", "a header in 44 pieces is put together", ScatteredHeader},
      {"event-index-off", "streams work without event index", EventIndexOff},
      {"index-wraps", "ring indices may wrap", IndexWraps},
  };
}

}  // namespace hostile
