// A VMM that breaks the vhost-user protocol is cut off; a guest's bad choices, passed on by a sound VMM, are not its
// fault and only keep its rings from starting.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "front_end.h"

namespace hostile {
namespace {

void SendRaw(FrontEnd& vmm, std::vector<uint32_t> words) {
  Expect(send(vmm.socket(), words.data(), 4 * words.size(), MSG_NOSIGNAL) > 0, "message not taken");
}

void BadVersion(FrontEnd& vmm) {
  SendRaw(vmm, {1, 2, 0});
  vmm.ExpectCut();
}
void ReplyAsRequest(FrontEnd& vmm) {
  SendRaw(vmm, {1, 5, 0});
  vmm.ExpectCut();
}
void HugePayload(FrontEnd& vmm) {
  SendRaw(vmm, {5, 1, 0xffffffff});
  vmm.ExpectCut();
}
void CutShort(FrontEnd& vmm) {
  SendRaw(vmm, {2, 1, 8, 0});
  shutdown(vmm.socket(), SHUT_WR);
  vmm.ExpectCut();
}
void ShortPayload(FrontEnd& vmm) {
  SendRaw(vmm, {2, 1, 4, 0});
  vmm.ExpectCut();
}
void TooManyDescriptors(FrontEnd& vmm) {
  vmm.SendU64(12, 0, std::vector<int>(9, vmm.memory_fd()));
  vmm.ExpectCut();
}
void ForeignFeatures(FrontEnd& vmm) {
  vmm.SendU64(2, kFeatures | 1ULL << 34);
  vmm.ExpectCut();
}
void ForeignProtocolFeatures(FrontEnd& vmm) {
  vmm.SendU64(16, 1ULL << 16);
  vmm.ExpectCut();
}
void RingIndex(FrontEnd& vmm) {
  vmm.SendState(8, 2, kSize);
  vmm.ExpectCut();
}
void RingIndexOfBase(FrontEnd& vmm) {
  vmm.SendState(11, 0x80000000, 0);
  vmm.ExpectCut();
}
void RingIndexOfKick(FrontEnd& vmm) {
  vmm.SendU64(12, 255, {vmm.memory_fd()});
  vmm.ExpectCut();
}
void RingBaseTooLarge(FrontEnd& vmm) {
  vmm.SendState(10, 0, 0x10000);
  vmm.ExpectCut();
}
void KickWithoutDescriptor(FrontEnd& vmm) {
  vmm.SendU64(12, 0);
  vmm.ExpectCut();
}
void KickToBePolled(FrontEnd& vmm) {
  vmm.SendU64(12, 0x100);
  vmm.ExpectCut();
}
void KickOnFile(FrontEnd& vmm) {
  vmm.SendU64(12, 0, {vmm.memory_fd()});
  vmm.ExpectCut();
}
void TableTooLong(FrontEnd& vmm) {
  std::vector<uint64_t> table(1 + 9 * 4);
  table[0] = 9;
  vmm.Send(5, table.data(), static_cast<uint32_t>(8 * table.size()), std::vector<int>(8, vmm.memory_fd()));
  vmm.ExpectCut();
}
void TableEmpty(FrontEnd& vmm) {
  vmm.SendU64(5, 0);
  vmm.ExpectCut();
}
void SendTable(FrontEnd& vmm, uint64_t size, uint64_t offset, std::vector<int> fds) {
  const uint64_t table[5] = {1, kGuestBase, size, kUserBase, offset};
  vmm.Send(5, table, sizeof table, std::move(fds), 9);
}
void TableWithoutDescriptor(FrontEnd& vmm) {
  SendTable(vmm, kMemoryBytes, 0, {});
  vmm.ExpectCut();
}
void TableTwoDescriptors(FrontEnd& vmm) {
  SendTable(vmm, kMemoryBytes, 0, {vmm.memory_fd(), vmm.memory_fd()});
  vmm.ExpectCut();
}
void TableWraps(FrontEnd& vmm) {
  SendTable(vmm, kMemoryBytes, ~uint64_t{0} - 4095, {vmm.memory_fd()});
  vmm.ExpectCut();
}
void TableAddressWraps(FrontEnd& vmm) {
  const uint64_t table[5] = {1, ~uint64_t{0} - 4095, kMemoryBytes, kUserBase, 0};
  vmm.Send(5, table, sizeof table, {vmm.memory_fd()}, 9);
  vmm.ExpectCut();
}
void TableBeyondFile(FrontEnd& vmm) {
  SendTable(vmm, kMemoryBytes, 4096, {vmm.memory_fd()});
  vmm.ExpectCut();
}
void TableEmptyRegion(FrontEnd& vmm) {
  SendTable(vmm, 0, 0, {vmm.memory_fd()});
  vmm.ExpectCut();
}
void TableOnPipe(FrontEnd& vmm) {
  int ends[2];
  Expect(pipe(ends) == 0, "pipe");
  SendTable(vmm, kMemoryBytes, 0, {ends[0]});
  vmm.ExpectCut();
}
void RefusedTableWhileRunning(FrontEnd& vmm) {
  vmm.Start();
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  SendTable(vmm, ~uint64_t{0}, 0, {vmm.memory_fd()});
  vmm.ExpectCut();
  ExpectEnd(fd);
}

// Not fatal: the ring does not start, and a later, sound start does.
void DoesNotStart(FrontEnd& vmm, uint32_t size, int64_t shift) {
  vmm.SendU64(2, kFeatures);
  vmm.SendMemoryTable();
  vmm.SetUpRing(0);
  vmm.SetUpRing(1, size, shift);
  vmm.Enable(0, true);
  vmm.Enable(1, true);
  const int fd = vmm.DialHost(7);
  ExpectEnd(fd);
  vmm.Stop();
  vmm.Start();
  vmm.ExpectAlive();
}
void RingSizeZero(FrontEnd& vmm) { DoesNotStart(vmm, 0, 0); }
void RingSizeOdd(FrontEnd& vmm) { DoesNotStart(vmm, 24, 0); }
void RingSizeHuge(FrontEnd& vmm) { DoesNotStart(vmm, 0x80000000, 0); }
void RingOutside(FrontEnd& vmm) { DoesNotStart(vmm, kSize, kMemoryBytes); }
void RingBefore(FrontEnd& vmm) { DoesNotStart(vmm, kSize, -0x10000000); }
void RingMisaligned(FrontEnd& vmm) { DoesNotStart(vmm, kSize, 1); }

void UnknownRequest(FrontEnd& vmm) {
  vmm.SendU64(99, 0, {}, 9);
  Expect(vmm.ReceiveU64(99) != 0, "an unknown request was accepted");
  vmm.SendU64(99, 0);
  vmm.Start();
  vmm.ExpectAlive();
}
void ConfigOutside(FrontEnd& vmm) {
  const uint32_t config[5] = {4, 8, 0, 0, 0};
  vmm.Send(24, config, sizeof config);
  Expect(vmm.Receive(24).empty(), "configuration beyond the CID");
  vmm.Start();
  vmm.ExpectAlive();
}
void SecondFrontEnd(FrontEnd& vmm) {
  vmm.Start();
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", vmm.vhost_path().c_str());
  Expect(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0, "a second front-end connected");
  vmm.ExpectAlive();
}
void MessageInPieces(FrontEnd& vmm) {
  const uint8_t bytes[20] = {2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x70, 1, 0, 0, 0};
  for (const uint8_t& byte : bytes) {
    Expect(send(vmm.socket(), &byte, 1, MSG_NOSIGNAL) == 1, "message not taken");
    usleep(1000);
  }
  vmm.Start();
  vmm.ExpectAlive();
}
void TableAgain(FrontEnd& vmm) {
  vmm.Start();
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  vmm.SendMemoryTable();
  WriteAll(fd, "still here");
  std::string payload;
  vmm.TakeOp(kData, &payload);
  Expect(payload == "still here", "the stream did not survive");
  vmm.ExpectAlive();
}

// A pause and a reset look the same when the rings stop; where they start again tells them apart.
void PauseKeepsStreams(FrontEnd& vmm) {
  vmm.Start();
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  vmm.Stop();
  WriteAll(fd, "sent while paused");
  vmm.Start(kFeatures, true);
  std::string payload;
  vmm.TakeOp(kData, &payload);
  Expect(payload == "sent while paused", "the stream did not survive");
}
void ResetDropsStreams(FrontEnd& vmm) {
  vmm.Start();
  Packet ports;
  const int fd = vmm.OpenStream(ports);
  vmm.Stop();
  vmm.Start();
  ExpectEnd(fd);
  vmm.ExpectAlive();
}
void ConnectBeforeStart(FrontEnd& vmm) {
  const int fd = vmm.DialHost(7);
  ExpectEnd(fd);
  vmm.Start();
  vmm.ExpectAlive();
}
void WorkBeforeEnable(FrontEnd& vmm) {
  // The receive ring is full and nobody will notify: as a driver leaves it that is bound anew.
  vmm.SendU64(2, kFeatures);
  vmm.SendMemoryTable();
  vmm.SetUpRing(0);
  vmm.SetUpRing(1);
  const uint16_t head = 0;
  vmm.SetDescriptor(0, 0, kGuestBase + kBuffers, 4096, kWrite);
  std::memcpy(vmm.At(0x1000 + 0x1000 + 4), &head, 2);
  vmm.SetAvailIndex(0, 1);
  vmm.Enable(0, true);
  vmm.Enable(1, true);
  vmm.Send(1, nullptr, 0);
  vmm.ReceiveU64(1);  // the rings run now
  vmm.DialHost(7);
  vmm.WaitUsed(0, 1);
}

}  // namespace

std::vector<Case> MessageCases() {
  return {
      {"bad-version", "a message of another version is fatal", BadVersion},
      {"reply-as-request", "a reply without a request is fatal", ReplyAsRequest},
      {"huge-payload", "a payload of 4 GiB is fatal before it is read", HugePayload},
      {"cut-short", "a message that ends in the middle is fatal", CutShort},
      {"short-payload", "a payload of the wrong size is fatal", ShortPayload},
      {"too-many-descriptors", "nine descriptors in one message are fatal", TooManyDescriptors},
      {"foreign-features", "features that were not offered are fatal", ForeignFeatures},
      {"foreign-protocol-features", "protocol features that were not offered are fatal", ForeignProtocolFeatures},
      {"ring-index", "the size of a third ring is fatal", RingIndex},
      {"ring-index-of-base", "the base of a ring that does not exist is fatal", RingIndexOfBase},
      {"ring-index-of-kick", "a notification of a ring that does not exist is fatal", RingIndexOfKick},
      {"ring-base-too-large", "a ring base above 65535 is fatal", RingBaseTooLarge},
      {"kick-without-descriptor", "a notification without its descriptor is fatal", KickWithoutDescriptor},
      {"kick-to-be-polled", "a ring that would have to be polled is fatal", KickToBePolled},
      {"kick-on-file", "a notification that cannot be waited for is fatal", KickOnFile},
      {"table-too-long", "a memory table of nine regions is fatal", TableTooLong},
      {"table-empty", "a memory table without regions is fatal", TableEmpty},
      {"table-without-descriptor", "a region without its descriptor is fatal", TableWithoutDescriptor},
      {"table-two-descriptors", "one region with two descriptors is fatal", TableTwoDescriptors},
      {"table-wraps", "a region whose end wraps is fatal", TableWraps},
      {"table-address-wraps", "a region whose guest addresses wrap is fatal", TableAddressWraps},
      {"table-beyond-file", "a region beyond its file is fatal, not a bus error", TableBeyondFile},
      {"table-empty-region", "an empty region is fatal", TableEmptyRegion},
      {"table-on-pipe", "a region of a pipe is fatal", TableOnPipe},
      {"refused-table-while-running", "a refused table is fatal and leaves no ring running on the old one", RefusedTableWhileRunning},
      {"ring-size-zero", "a ring of size zero does not start", RingSizeZero},
      {"ring-size-odd", "a ring whose size is no power of two does not start", RingSizeOdd},
      {"ring-size-huge", "a ring above 1024 entries does not start", RingSizeHuge},
      {"ring-outside", "a ring behind memory does not start", RingOutside},
      {"ring-before", "a ring before memory does not start", RingBefore},
      {"ring-misaligned", "a misaligned ring does not start", RingMisaligned},
      {"unknown-request", "an unknown request is refused and harms nothing", UnknownRequest},
      {"config-outside", "configuration beyond the CID is refused", ConfigOutside},
      {"second-front-end", "a second front-end finds nobody", SecondFrontEnd},
      {"message-in-pieces", "a message may arrive byte by byte", MessageInPieces},
      {"table-again", "a new memory table keeps the streams", TableAgain},
      {"pause-keeps-streams", "rings that go on where they stopped keep the streams", PauseKeepsStreams},
      {"reset-drops-streams", "rings that start anew drop the streams", ResetDropsStreams},
      {"connect-before-start", "a client that comes before the driver is closed at once", ConnectBeforeStart},
      {"work-before-enable", "buffers that were there before the start are used without a notification", WorkBeforeEnable},
  };
}

}  // namespace hostile
