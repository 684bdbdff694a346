#include "front_end.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace hostile {
namespace {

constexpr int kWaitMs = 20'000;

void WaitReadable(int fd, const char* what) {
  pollfd poll_fd{.fd = fd, .events = POLLIN, .revents = 0};
  if (poll(&poll_fd, 1, kWaitMs) != 1) Fail(std::string("nothing came: ") + what);
}

sockaddr_un Address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path.c_str());
  return address;
}

std::atomic_ref<uint16_t> Index(uint8_t* at) { return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(at)); }

}  // namespace

void Fail(const std::string& what) {
  std::fprintf(stderr, "vsock-hostile: %s\n", what.c_str());
  std::_Exit(1);
}

void Expect(bool condition, const std::string& what) {
  if (!condition) Fail(what);
}

FrontEnd::FrontEnd(std::string vhost_path, std::string vsock_path)
    : vhost_path_(std::move(vhost_path)), vsock_path_(std::move(vsock_path)) {
  memory_fd_ = memfd_create("guest", MFD_CLOEXEC);
  Expect(memory_fd_ >= 0 && ftruncate(memory_fd_, kMemoryBytes) == 0, "no memory");
  memory_ = static_cast<uint8_t*>(mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_, 0));
  for (int ring = 0; ring < 2; ++ring) {
    kick_[ring] = eventfd(0, EFD_NONBLOCK);
    call_[ring] = eventfd(0, EFD_NONBLOCK);
    error_[ring] = eventfd(0, EFD_NONBLOCK);
  }
}

void FrontEnd::Connect() {
  socket_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
  const sockaddr_un address = Address(vhost_path_);
  Expect(connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "cannot connect");
}

void FrontEnd::Send(uint32_t request, const void* payload, uint32_t bytes, std::vector<int> fds, uint32_t flags) {
  uint32_t header[3] = {request, flags, bytes};
  iovec segments[2] = {{header, sizeof header}, {const_cast<void*>(payload), bytes}};
  msghdr message{};
  message.msg_iov = segments;
  message.msg_iovlen = 2;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 64)];
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* item = CMSG_FIRSTHDR(&message);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(item), fds.data(), sizeof(int) * fds.size());
  }
  Expect(sendmsg(socket_, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof header + bytes), "message not taken");
}

void FrontEnd::SendU64(uint32_t request, uint64_t value, std::vector<int> fds, uint32_t flags) {
  Send(request, &value, sizeof value, std::move(fds), flags);
}

void FrontEnd::SendState(uint32_t request, uint32_t index, uint32_t number) {
  const uint32_t state[2] = {index, number};
  Send(request, state, sizeof state);
}

std::vector<uint8_t> FrontEnd::Receive(uint32_t request) {
  uint32_t header[3];
  WaitReadable(socket_, "reply");
  Expect(recv(socket_, header, sizeof header, MSG_WAITALL) == sizeof header, "no reply");
  Expect(header[0] == request && header[1] == 5, "reply to another request");
  std::vector<uint8_t> payload(header[2]);
  if (!payload.empty()) {
    Expect(recv(socket_, payload.data(), payload.size(), MSG_WAITALL) == ssize_t(payload.size()), "reply cut short");
  }
  return payload;
}

uint64_t FrontEnd::ReceiveU64(uint32_t request) {
  const std::vector<uint8_t> payload = Receive(request);
  Expect(payload.size() == 8, "reply of another size");
  uint64_t value;
  std::memcpy(&value, payload.data(), sizeof value);
  return value;
}

void FrontEnd::ExpectCut() {
  WaitReadable(socket_, "hang-up");
  char byte;
  Expect(recv(socket_, &byte, 1, 0) <= 0, "it answered instead of hanging up");
}

void FrontEnd::Negotiate() {
  Connect();
  Send(1, nullptr, 0);
  Expect(ReceiveU64(1) == kFeatures, "other features");
  Send(15, nullptr, 0);
  Expect(ReceiveU64(15) == 0x209, "other protocol features");
  SendU64(16, 0x209);
  Send(17, nullptr, 0);
  Expect(ReceiveU64(17) == 2, "other number of queues");
  Send(3, nullptr, 0);
  const uint32_t config[5] = {0, 8, 0, 0, 0};
  Send(24, config, sizeof config);
  const std::vector<uint8_t> reply = Receive(24);
  Expect(reply.size() == 20 && reply[12] == 3, "other CID");
}

void FrontEnd::SendMemoryTable() {
  const uint64_t table[5] = {1, kGuestBase, kMemoryBytes, kUserBase, 0};
  Send(5, table, sizeof table, {memory_fd_}, 9);
  Expect(ReceiveU64(5) == 0, "memory refused");
}

void FrontEnd::SetUpRing(uint32_t index, uint32_t size, int64_t shift_addresses) {
  SendState(8, index, size);
  SendState(10, index, base_[index]);
  const uint64_t at = kUserBase + RingOffset(index) + static_cast<uint64_t>(shift_addresses);
  const uint64_t address[5] = {index, at, at + 0x2000, at + 0x1000, 0};
  Send(9, address, sizeof address);
  SendU64(12, index, {kick_[index]});
}

void FrontEnd::Enable(uint32_t index, bool enabled) { SendState(18, index, enabled ? 1 : 0); }

void FrontEnd::Start(uint64_t features, bool keep) {
  if (!keep) {
    std::memset(memory_, 0, kBuffers);
    avail_[0] = avail_[1] = base_[0] = base_[1] = 0;
  }
  SendU64(2, features);
  SendMemoryTable();
  for (uint32_t ring = 0; ring < 2; ++ring) {
    SendU64(13, ring, {call_[ring]});
    SendU64(14, ring, {error_[ring]});
  }
  for (uint32_t ring = 0; ring < 2; ++ring) SetUpRing(ring);
  for (uint32_t ring = 0; ring < 2; ++ring) Enable(ring, true);
}

void FrontEnd::Stop() {
  for (uint32_t ring = 0; ring < 2; ++ring) Enable(ring, false);
  for (uint32_t ring = 0; ring < 2; ++ring) {
    SendState(11, ring, 0);
    const std::vector<uint8_t> reply = Receive(11);
    uint32_t state[2];
    Expect(reply.size() == sizeof state, "ring base of another size");
    std::memcpy(state, reply.data(), sizeof state);
    Expect(state[0] == ring, "base of another ring");
    base_[ring] = static_cast<uint16_t>(state[1]);
  }
}

void FrontEnd::WriteDescriptor(void* at, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
  auto* bytes = static_cast<uint8_t*>(at);
  std::memcpy(bytes, &address, 8);
  std::memcpy(bytes + 8, &length, 4);
  std::memcpy(bytes + 12, &flags, 2);
  std::memcpy(bytes + 14, &next, 2);
}

void FrontEnd::SetDescriptor(uint32_t ring, uint16_t index, uint64_t address, uint32_t length, uint16_t flags,
                             uint16_t next) {
  WriteDescriptor(At(RingOffset(ring) + 16 * uint64_t{index}), address, length, flags, next);
}

void FrontEnd::Offer(uint32_t ring, uint16_t head, uint16_t count) {
  for (uint16_t done = 0; done < count; ++done) {
    std::memcpy(At(RingOffset(ring) + 0x1000 + 4 + 2 * (avail_[ring] % kSize)), &head, 2);
    ++avail_[ring];
  }
  SetAvailIndex(ring, avail_[ring]);
  Kick(ring);
}

void FrontEnd::SetAvailIndex(uint32_t ring, uint16_t index) {
  Index(At(RingOffset(ring) + 0x1000 + 2)).store(index, std::memory_order_release);
}

void FrontEnd::Kick(uint32_t ring) {
  const uint64_t one = 1;
  Expect(write(kick_[ring], &one, sizeof one) == sizeof one, "kick");
}

uint16_t FrontEnd::Used(uint32_t ring) {
  return Index(At(RingOffset(ring) + 0x2000 + 2)).load(std::memory_order_acquire);
}

uint32_t FrontEnd::UsedLength(uint32_t ring, uint16_t position) {
  uint32_t length;
  std::memcpy(&length, At(RingOffset(ring) + 0x2000 + 4 + 8 * (position % kSize) + 4), 4);
  return length;
}

void FrontEnd::WaitUsed(uint32_t ring, uint16_t index) {
  // Polled, because a rule under test may be the interrupt itself; used_event stays where the device saw it first.
  for (int waited = 0; Used(ring) != index; ++waited) {
    if (waited > kWaitMs * 5) Fail("ring " + std::to_string(ring) + " does not go on");
    usleep(200);
  }
}

void FrontEnd::ExpectBroken(uint32_t ring) {
  WaitReadable(error_[ring], "sign that the ring is broken");
  uint64_t count;
  Expect(read(error_[ring], &count, sizeof count) == sizeof count, "no sign that the ring is broken");
}

void FrontEnd::Transmit(const Packet& packet, const std::string& payload) {
  Packet copy = packet;
  if (copy.length == 0) copy.length = static_cast<uint32_t>(payload.size());
  std::memcpy(At(kBuffers), &copy, kHeaderBytes);
  std::memcpy(At(kBuffers + kHeaderBytes), payload.data(), payload.size());
  SetDescriptor(1, 0, kGuestBase + kBuffers, static_cast<uint32_t>(kHeaderBytes + payload.size()), 0);
  Offer(1, 0);
  WaitUsed(1, avail_[1]);
}

Packet FrontEnd::Take(std::string* payload) {
  constexpr uint64_t kAt = kBuffers + 0x100000;
  const uint16_t position = avail_[0];
  SetDescriptor(0, 0, kGuestBase + kAt, 4096, kWrite);
  Offer(0, 0);
  WaitUsed(0, avail_[0]);
  Packet packet;
  std::memcpy(&packet, At(kAt), kHeaderBytes);
  Expect(UsedLength(0, position) == kHeaderBytes + packet.length, "used length is not header and payload");
  if (payload != nullptr) payload->assign(reinterpret_cast<char*>(At(kAt + kHeaderBytes)), packet.length);
  return packet;
}

Packet FrontEnd::TakeOp(uint16_t op, std::string* payload) {
  for (;;) {
    const Packet packet = Take(payload);
    if (packet.op == op) return packet;
    Expect(packet.op == kCreditUpdate, "packet of op " + std::to_string(packet.op) + ", expected " + std::to_string(op));
  }
}

int FrontEnd::DialHost(uint32_t port) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  const sockaddr_un address = Address(vsock_path_);
  Expect(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "cannot dial");
  WriteAll(fd, "CONNECT " + std::to_string(port) + "\n");
  return fd;
}

int FrontEnd::ListenHost(uint32_t port) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  const std::string path = vsock_path_ + "_" + std::to_string(port);
  unlink(path.c_str());
  const sockaddr_un address = Address(path);
  Expect(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && listen(fd, 2000) == 0, "listen");
  return fd;
}

int FrontEnd::OpenStream(Packet& ports) {
  const uint32_t port = next_port_++;
  const int fd = DialHost(port);
  const Packet request = TakeOp(kRequest);
  Expect(request.destination_port == port && request.source_cid == 2 && request.destination_cid == 3, "other request");
  ports = Packet{};
  ports.source_port = port;
  ports.destination_port = request.source_port;
  Packet response = ports;
  response.op = kResponse;
  Transmit(response);
  Expect(ReadLine(fd) == "OK " + std::to_string(request.source_port), "no OK line");
  return fd;
}

void FrontEnd::ExpectAlive() {
  Packet ports;
  const int fd = OpenStream(ports);
  WriteAll(fd, "hello");
  std::string payload;
  TakeOp(kData, &payload);
  Expect(payload == "hello", "other bytes for the guest");
  Packet data = ports;
  data.op = kData;
  data.forwarded = 5;
  Transmit(data, "world");
  Expect(ReadSome(fd, 5) == "world", "other bytes for the host");
  close(fd);
  Packet shutdown = TakeOp(kShutdown);
  if (shutdown.flags != 3) shutdown = TakeOp(kShutdown);
  Expect(shutdown.flags == 3, "the close is not told");
  Packet reset = ports;
  reset.op = kReset;
  Transmit(reset);
}

std::string ReadLine(int fd) {
  std::string line;
  for (char byte;;) {
    WaitReadable(fd, "line");
    if (recv(fd, &byte, 1, 0) != 1) return line + "(end)";
    if (byte == '\n') return line;
    line += byte;
  }
}

std::string ReadSome(int fd, size_t bytes) {
  std::string text(bytes, 0);
  WaitReadable(fd, "bytes");
  const ssize_t count = recv(fd, text.data(), bytes, MSG_WAITALL);
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return text;
}

void WriteAll(int fd, const std::string& bytes) {
  Expect(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()), "write");
}

void ExpectEnd(int fd) {
  char byte;
  WaitReadable(fd, "end of a host socket");
  Expect(recv(fd, &byte, 1, 0) <= 0, "the host socket did not end");
  close(fd);
}

}  // namespace hostile
