// Packets that break rules of virtio 1.2, section 5.10, or of flow control.

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "front_end.h"

namespace hostile {
namespace {

Packet Lonely(uint16_t op) {
  Packet packet;
  packet.source_port = 4242;
  packet.destination_port = 4343;
  packet.op = op;
  return packet;
}

void ExpectResetFor(FrontEnd& vmm, const Packet& packet) {
  const Packet reset = vmm.TakeOp(kReset);
  Expect(reset.source_port == packet.destination_port && reset.destination_port == packet.source_port,
         "a reset for other ports");
  Expect(reset.source_cid == packet.destination_cid && reset.destination_cid == 3, "a reset for other CIDs");
  Expect(reset.type == packet.type, "a reset of another type");
}

void AnsweredByReset(FrontEnd& vmm, const Packet& packet) {
  vmm.Transmit(packet);
  ExpectResetFor(vmm, packet);
  vmm.ExpectAlive();
}
void ResponseForNobody(FrontEnd& vmm) { AnsweredByReset(vmm, Lonely(kResponse)); }
void DataForNobody(FrontEnd& vmm) { AnsweredByReset(vmm, Lonely(kData)); }
void UnknownOpForNobody(FrontEnd& vmm) { AnsweredByReset(vmm, Lonely(999)); }
void RequestWithoutListener(FrontEnd& vmm) { AnsweredByReset(vmm, Lonely(kRequest)); }
void ForeignDestination(FrontEnd& vmm) {
  Packet packet = Lonely(kRequest);
  packet.destination_cid = 7;
  AnsweredByReset(vmm, packet);
}
void UnknownType(FrontEnd& vmm) {
  Packet packet = Lonely(kRequest);
  packet.type = 2;
  AnsweredByReset(vmm, packet);
}
void NotAnswered(FrontEnd& vmm, const Packet& packet) {
  vmm.Transmit(packet);
  const Packet marker = Lonely(kData);
  vmm.Transmit(marker);
  ExpectResetFor(vmm, marker);  // and not for the first one
  vmm.ExpectAlive();
}
void ResetForNobody(FrontEnd& vmm) {
  Packet packet = Lonely(kReset);
  packet.source_port = 1;
  NotAnswered(vmm, packet);
}
void ForeignSource(FrontEnd& vmm) {
  Packet packet = Lonely(kRequest);
  packet.source_cid = 4;
  packet.source_port = 1;
  NotAnswered(vmm, packet);
}

// On an open stream: it ends on both sides, another one works.
void EndsTheStream(FrontEnd& vmm, Packet change, const std::string& payload = "") {
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  change.source_port = ports.source_port;
  change.destination_port = ports.destination_port;
  vmm.Transmit(change, payload);
  ExpectResetFor(vmm, change);
  char sink[16];
  while (recv(fd, sink, sizeof sink, 0) > 0) continue;
  close(fd);
  vmm.ExpectAlive();
}
void LengthBeyondChain(FrontEnd& vmm) {
  Packet packet = Lonely(kData);
  packet.length = 6;
  EndsTheStream(vmm, packet, "five!");
}
void LengthTooLarge(FrontEnd& vmm) {
  EndsTheStream(vmm, Lonely(kData), std::string(64 * 1024 + 1, 'x'));
}
void LengthNegative(FrontEnd& vmm) {
  Packet packet = Lonely(kData);
  packet.length = 0xffffffff;
  EndsTheStream(vmm, packet, "x");
}
void RequestOnLiveStream(FrontEnd& vmm) { EndsTheStream(vmm, Lonely(kRequest)); }
void ShutdownOfBoth(FrontEnd& vmm) {
  Packet packet = Lonely(kShutdown);
  packet.flags = 3;
  EndsTheStream(vmm, packet);
}
void DataAfterShutdown(FrontEnd& vmm) {
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  Packet packet = ports;
  packet.op = kShutdown;
  packet.flags = 2;
  vmm.Transmit(packet);
  packet.op = kData;
  vmm.Transmit(packet, "late");
  ExpectResetFor(vmm, packet);
  ExpectEnd(fd);
  vmm.ExpectAlive();
}
void DataBeforeResponse(FrontEnd& vmm) {
  const int fd = vmm.DialHost(7);
  const Packet request = vmm.TakeOp(kRequest);
  Packet data = Lonely(kData);
  data.source_port = 7;
  data.destination_port = request.source_port;
  vmm.Transmit(data, "early");
  ExpectResetFor(vmm, data);
  ExpectEnd(fd);
  vmm.ExpectAlive();
}
void UnknownOpOnStream(FrontEnd& vmm) {
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  Packet packet = ports;
  packet.op = 999;
  vmm.Transmit(packet);
  packet.op = 0;
  vmm.Transmit(packet);
  WriteAll(fd, "x");
  vmm.TakeOp(kData);
}
void CreditViolation(FrontEnd& vmm) {
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  Packet data = ports;
  data.op = kData;
  const std::string block(60 * 1024, 'x');
  size_t sent = 0;
  // Nobody reads: the socket fills, then the device's buffer, and then the device must not take any more.
  constexpr uint64_t kAnswer = kBuffers + 0x100000;
  vmm.SetDescriptor(0, 0, kGuestBase + kAnswer, 4096, kWrite);
  vmm.Offer(0, 0);
  for (bool reset = false; !reset && sent < (2 << 20); sent += block.size()) {
    vmm.Transmit(data, block);
    for (int waited = 0; waited < 10 && vmm.Used(0) != vmm.avail(0); ++waited) usleep(1000);
    if (vmm.Used(0) != vmm.avail(0)) continue;
    Packet answer;
    std::memcpy(&answer, vmm.At(kAnswer), kHeaderBytes);
    reset = answer.op == kReset;
    if (!reset) vmm.Offer(0, 0);
  }
  Expect(sent < (2 << 20), "the device took " + std::to_string(sent) + " bytes that nobody read");
  char sink[4096];
  size_t received = 0;
  for (ssize_t count; (count = recv(fd, sink, sizeof sink, 0)) > 0;) received += static_cast<size_t>(count);
  Expect(received > 256 * 1024, "what was within credit did not arrive");
}
void BogusCredit(FrontEnd& vmm, uint32_t buffer_bytes, uint32_t forwarded) {
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  WriteAll(fd, "x");
  vmm.TakeOp(kData);
  Packet update = ports;
  update.op = kCreditUpdate;
  update.buffer_bytes = buffer_bytes;
  update.forwarded = forwarded;
  vmm.Transmit(update);
  WriteAll(fd, "y");
  vmm.ExpectAlive();  // its packets are not held up by the stuck stream, and none of that comes first
  update.buffer_bytes = 1000;
  update.forwarded = 1;
  vmm.Transmit(update);
  std::string payload;
  vmm.TakeOp(kData, &payload);
  Expect(payload == "y", "the stream did not recover");
}
void ShrinkingBuffer(FrontEnd& vmm) { BogusCredit(vmm, 0, 0); }
void AbsurdForwardCount(FrontEnd& vmm) { BogusCredit(vmm, 1000, 0x80000000); }
void CreditIsKept(FrontEnd& vmm) {
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  Packet update = ports;
  update.op = kCreditUpdate;
  update.buffer_bytes = 10;
  vmm.Transmit(update);
  WriteAll(fd, std::string(100, 'x'));
  std::string payload;
  vmm.TakeOp(kData, &payload);
  Expect(payload.size() == 10, "more than the credit");
  vmm.ExpectAlive();
  update.forwarded = 7;
  vmm.Transmit(update);
  vmm.TakeOp(kData, &payload);
  Expect(payload.size() == 7, "not exactly the new credit");
}
void CreditRequestFlood(FrontEnd& vmm) {
  Packet ports;
  vmm.OpenStream(ports);
  Packet request = ports;
  request.op = kCreditRequest;
  for (int count = 0; count < 5000; ++count) vmm.Transmit(request);
  vmm.TakeOp(kCreditUpdate);
  vmm.ExpectAlive();
}
void ReplyFlood(FrontEnd& vmm) {
  Packet packet = Lonely(kData);
  std::memcpy(vmm.At(kBuffers), &packet, kHeaderBytes);
  vmm.SetDescriptor(1, 0, kGuestBase + kBuffers, kHeaderBytes, 0);
  uint16_t taken = 0;
  for (int idle = 0; idle < 50;) {  // until the device takes no more
    if (vmm.Used(1) == vmm.avail(1)) {
      vmm.Offer(1, 0, kSize);
      idle = 0;
    } else {
      usleep(2000);
      ++idle;
    }
    taken = vmm.Used(1);
    Expect(taken < 4000, "replies pile up without bound");
  }
  Expect(taken >= 2048, "the device stopped early, at " + std::to_string(taken));
  const uint16_t offered = vmm.avail(1);
  for (int count = 0; count < offered; ++count) vmm.TakeOp(kReset);
  Expect(vmm.Used(1) == offered, "the device did not go on");
  vmm.ExpectAlive();
}
void ConnectionLimit(FrontEnd& vmm) {
  const int listener = vmm.ListenHost(4343);
  Packet packet = Lonely(kRequest);
  for (uint32_t count = 0; count < 1023; ++count) {
    packet.source_port = 10'000 + count;
    vmm.Transmit(packet);
    Expect(vmm.TakeOp(kResponse).destination_port == packet.source_port, "response to another request");
    Expect(accept(listener, nullptr, nullptr) >= 0, "accept");
  }
  packet.source_port = 9'999;
  vmm.Transmit(packet);
  ExpectResetFor(vmm, packet);
  Packet reset = packet;
  reset.op = kReset;
  reset.source_port = 10'000;
  vmm.Transmit(reset);
  vmm.ExpectAlive();
}
void RacingHeader(FrontEnd& vmm) {
  Packet ports;
  int fd = vmm.OpenStream(ports);
  std::atomic<bool> stop = false;
  std::thread racer([&] {  // the guest's other CPU
    auto* length = reinterpret_cast<volatile uint32_t*>(vmm.At(kBuffers + 24));
    auto* descriptor_length = reinterpret_cast<volatile uint32_t*>(vmm.At(0x5000 + 8));
    for (uint32_t round = 0; !stop; ++round) {
      *length = round % 3 == 0 ? 0xffffffff : round % 3;
      *descriptor_length = round % 5 == 0 ? 44 : 64;
    }
  });
  Packet data = ports;
  data.op = kData;
  for (int round = 0; round < 1500; ++round) {  // below the limit of pending resets
    std::memcpy(vmm.At(kBuffers), &data, kHeaderBytes);
    vmm.SetDescriptor(1, 0, kGuestBase + kBuffers, 64, 0);
    vmm.Offer(1, 0);
    vmm.WaitUsed(1, vmm.avail(1));
  }
  stop = true;
  racer.join();
  close(fd);
  vmm.Stop();
  vmm.Start();
  vmm.ExpectAlive();
}
void HostLeavesWhileAsked(FrontEnd& vmm) {
  const int fd = vmm.DialHost(7);
  const Packet request = vmm.TakeOp(kRequest);
  close(fd);
  Expect(vmm.TakeOp(kReset).source_port == request.source_port, "a reset for another stream");
  vmm.ExpectAlive();
}
void HalfCloseByGuest(FrontEnd& vmm) {
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  Packet packet = ports;
  packet.op = kData;
  vmm.Transmit(packet, "last words");
  packet.op = kShutdown;
  packet.flags = 2;
  vmm.Transmit(packet);
  Expect(ReadSome(fd, 10) == "last words", "other bytes");
  Expect(ReadSome(fd, 1).empty(), "no end of file");
  WriteAll(fd, "an answer");
  std::string payload;
  vmm.TakeOp(kData, &payload);
  Expect(payload == "an answer", "the other direction ended too");
}
}  // namespace

std::vector<Case> PacketCases() {
  return {
      {"response-for-nobody", "a response for no stream is answered by a reset", ResponseForNobody},
      {"data-for-nobody", "data for no stream is answered by a reset", DataForNobody},
      {"unknown-op-for-nobody", "an unknown operation for no stream is answered by a reset", UnknownOpForNobody},
      {"request-without-listener", "a request without a host listener is answered by a reset", RequestWithoutListener},
      {"foreign-destination", "a request for another CID is answered by a reset from there", ForeignDestination},
      {"unknown-type", "a socket type that is not offered is answered by a reset of that type", UnknownType},
      {"reset-for-nobody", "a reset is never answered", ResetForNobody},
      {"foreign-source", "a packet with a foreign source is not answered", ForeignSource},
      {"length-beyond-chain", "a length beyond the chain ends the stream", LengthBeyondChain},
      {"length-too-large", "a payload above 64 KiB ends the stream", LengthTooLarge},
      {"length-negative", "a length of 4 GiB ends the stream", LengthNegative},
      {"request-on-live-stream", "a request for ports in use ends the stream", RequestOnLiveStream},
      {"shutdown-of-both", "the end of both directions is confirmed by a reset", ShutdownOfBoth},
      {"data-after-shutdown", "data after the end of the direction ends the stream", DataAfterShutdown},
      {"data-before-response", "data before the response ends the stream", DataBeforeResponse},
      {"unknown-op-on-stream", "an unknown operation on a stream is ignored", UnknownOpOnStream},
      {"credit-violation", "a guest that ignores credit is cut, and its reader keeps what came before", CreditViolation},
      {"shrinking-buffer", "a receive buffer that shrinks stalls only its stream", ShrinkingBuffer},
      {"absurd-forward-count", "an absurd count of consumed bytes stalls only its stream", AbsurdForwardCount},
      {"credit-is-kept", "the guest never gets more than its credit", CreditIsKept},
      {"credit-request-flood", "any number of credit requests costs one answer", CreditRequestFlood},
      {"reply-flood", "a guest that takes no replies may not cause more of them", ReplyFlood},
      {"connection-limit", "the 1024th stream is refused", ConnectionLimit},
      {"racing-header", "a header that changes while it is read harms nobody", RacingHeader},
      {"host-leaves-while-asked", "a client that leaves early takes its request back", HostLeavesWhileAsked},
      {"half-close-by-guest", "the guest may end its direction alone", HalfCloseByGuest},
  };
}

}  // namespace hostile
