#include "vhost_user_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace caisson::pod {
namespace {

// virtio feature bits (virtio 1.2, section 6) and the one that belongs to vhost-user.
constexpr uint64_t kIndirect = 1ULL << 28;
constexpr uint64_t kEventIndex = 1ULL << 29;
constexpr uint64_t kHasProtocolFeatures = 1ULL << 30;
constexpr uint64_t kVersion1 = 1ULL << 32;
constexpr uint64_t kFeatures = kIndirect | kEventIndex | kHasProtocolFeatures | kVersion1;

// Protocol feature bits. STATUS is not offered: QEMU 7.2 then never reports DRIVER_OK.
constexpr uint64_t kMultiQueue = 1ULL << 0;
constexpr uint64_t kReplyAck = 1ULL << 3;
constexpr uint64_t kConfig = 1ULL << 9;
constexpr uint64_t kProtocolFeatures = kMultiQueue | kReplyAck | kConfig;

constexpr int kMessagesPerTurn = 32;
constexpr uint64_t kRejected = 1;

void MakeNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

}  // namespace

bool VhostUserServer::KickWatch::Start(int fd) {
  fd_ = fd;
  return watch_.Start(fd, EPOLLIN, *this);
}

void VhostUserServer::KickWatch::OnReady(uint32_t) {
  uint64_t count;  // an eventfd's counter; its value means nothing here
  const ssize_t bytes = read(fd_, &count, sizeof count);
  if (bytes <= 0 && errno != EAGAIN) return watch_.Stop();  // no eventfd after all: it would wake us for ever
  device_.OnKick();
}

VhostUserServer::VhostUserServer(EventLoop& loop, Events& events, VsockDevice& device, uint64_t guest_cid)
    : loop_(loop),
      events_(events),
      device_(device),
      guest_cid_(guest_cid),
      watch_(loop),
      kicks_{{loop, device}, {loop, device}} {}

VhostUserServer::~VhostUserServer() { StopDevice(); }

int VhostUserServer::Listen(const std::string& path) {
  const int result = listener_.Listen(path, 1);
  if (result == 0) watch_.Start(listener_.fd(), EPOLLIN, *this);
  return result;
}

void VhostUserServer::OnReady(uint32_t) {
  if (!socket_) {
    socket_ = listener_.Accept();
    if (!socket_) return;
    watch_.Stop();
    listener_.Close();  // a second front-end finds nobody
    watch_.Start(socket_.get(), EPOLLIN, *this);
    return;
  }
  for (int turn = 0; turn < kMessagesPerTurn; ++turn) {
    switch (Receive()) {
      case Received::kAgain:
        return;
      case Received::kLost:
        return;
      case Received::kMessage:
        if (const char* violation = Handle()) return Lose(violation);
        bytes_.clear();
        fds_.clear();
        StartDeviceIfPossible();
    }
  }
}

// Reads up to the end of one message and never beyond, so that descriptors stay with the message they came with.
VhostUserServer::Received VhostUserServer::Receive() {
  for (;;) {
    const bool in_payload = bytes_.size() >= kMessageHeaderBytes;
    const size_t wanted = kMessageHeaderBytes + (in_payload ? header_.payload_bytes : 0) - bytes_.size();
    if (in_payload && wanted == 0) return Received::kMessage;

    uint8_t buffer[kMessageHeaderBytes + kMaxMessagePayloadBytes];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)];
    iovec segment{buffer, wanted};
    msghdr message{};
    message.msg_iov = &segment;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t count = recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return Received::kAgain;
    if (count <= 0) {
      Lose(bytes_.empty() ? nullptr : "message cut short");
      return Received::kLost;
    }
    for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr; item = CMSG_NXTHDR(&message, item)) {
      if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
      for (size_t at = 0; at + sizeof(int) <= item->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(item) + at, sizeof fd);
        fds_.emplace_back(fd);
      }
    }
    if ((message.msg_flags & MSG_CTRUNC) != 0 || fds_.size() > kMaxMessageFds) {
      Lose("too many descriptors");
      return Received::kLost;
    }
    bytes_.insert(bytes_.end(), buffer, buffer + count);
    if (!in_payload && bytes_.size() == kMessageHeaderBytes) {
      const auto header = ParseMessageHeader(std::span<const uint8_t, kMessageHeaderBytes>(bytes_));
      if (!header) {
        Lose("bad message header");
        return Received::kLost;
      }
      header_ = *header;
    }
  }
}

const char* VhostUserServer::Handle() {
  const Bytes payload = Bytes(bytes_).subspan(kMessageHeaderBytes);
  const bool wants_ack = (header_.flags & kMessageNeedReply) != 0 && (protocol_features_ & kReplyAck) != 0;
  const char* violation = nullptr;
  uint64_t ack = 0;
  switch (static_cast<Request>(header_.request)) {
    case Request::kGetFeatures:
      return ReplyU64(kFeatures) ? nullptr : "reply not taken";
    case Request::kGetProtocolFeatures:
      return ReplyU64(kProtocolFeatures) ? nullptr : "reply not taken";
    case Request::kGetQueueNum:
      return ReplyU64(kRings) ? nullptr : "reply not taken";
    case Request::kGetVringBase:
      return GetRingBase(payload);
    case Request::kGetConfig:
      return GetConfig(payload);
    case Request::kSetFeatures: {
      const auto value = ParseU64(payload);
      if (!value || (*value & ~kFeatures) != 0) return "features that were not offered";
      features_ = *value;
      break;
    }
    case Request::kSetProtocolFeatures: {
      const auto value = ParseU64(payload);
      if (!value || (*value & ~kProtocolFeatures) != 0) return "protocol features that were not offered";
      protocol_features_ = *value;
      break;
    }
    case Request::kSetMemTable:
      violation = SetMemoryTable(payload);
      break;
    case Request::kSetVringNum: {
      const auto state = ParseVringState(payload);
      if (!state || state->index >= kRings) return "bad ring size message";
      rings_[state->index].size = state->number;
      break;
    }
    case Request::kSetVringBase: {
      const auto state = ParseVringState(payload);
      if (!state || state->index >= kRings || state->number > UINT16_MAX) return "bad ring base message";
      rings_[state->index].base = static_cast<uint16_t>(state->number);
      break;
    }
    case Request::kSetVringAddr: {
      const auto address = ParseVringAddress(payload);
      if (!address || address->index >= kRings) return "bad ring address message";
      StopDevice();
      Ring& ring = rings_[address->index];
      ring.addresses = {.descriptors = address->descriptors, .used = address->used, .avail = address->avail};
      ring.addresses_set = true;
      Resolve(address->index);
      break;
    }
    case Request::kSetVringEnable: {
      const auto state = ParseVringState(payload);
      if (!state || state->index >= kRings || state->number > 1) return "bad ring enable message";
      if (state->number == 0) StopDevice();
      rings_[state->index].enabled = state->number == 1;
      break;
    }
    case Request::kSetVringKick:
    case Request::kSetVringCall:
    case Request::kSetVringErr:
      violation = SetRingFd(static_cast<Request>(header_.request), payload);
      break;
    case Request::kSetOwner:
    case Request::kResetOwner:
      break;
    case Request::kSetConfig:
    default:
      ack = kRejected;
  }
  if (violation == nullptr && wants_ack && !ReplyU64(ack)) return "reply not taken";
  return violation;
}

const char* VhostUserServer::SetMemoryTable(Bytes payload) {
  const auto entries = ParseMemoryTable(payload);
  if (!entries || entries->size() != fds_.size()) return "bad memory table";
  auto map = MemoryMap::Create(*entries, fds_);
  if (map == nullptr) return "memory table that cannot be mapped";
  StopDevice();
  for (Ring& ring : rings_) ring.queue.Detach();  // before the old memory goes
  map_ = std::move(map);
  for (size_t index = 0; index < kRings; ++index) Resolve(index);
  return nullptr;
}

const char* VhostUserServer::SetRingFd(Request request, Bytes payload) {
  const auto value = ParseVringFd(payload);
  if (!value || value->index >= kRings) return "bad ring descriptor message";
  if (fds_.size() != (value->has_fd ? 1 : 0)) return "ring descriptor missing";
  UniqueFd fd = value->has_fd ? std::move(fds_.front()) : UniqueFd();
  if (fd) MakeNonBlocking(fd.get());
  Ring& ring = rings_[value->index];
  switch (request) {
    case Request::kSetVringCall:
      ring.call = std::move(fd);
      return nullptr;
    case Request::kSetVringErr:
      ring.error = std::move(fd);
      return nullptr;
    default:
      break;
  }
  if (!fd) return "ring without notifications";  // it would have to be polled
  StopDevice();
  KickWatch& kick = kicks_[value->index];
  kick.Stop();
  ring.kick = std::move(fd);
  if (!kick.Start(ring.kick.get())) return "ring notifications that cannot be waited for";
  if ((features_ & kHasProtocolFeatures) == 0) ring.enabled = true;
  Resolve(value->index);
  return nullptr;
}

const char* VhostUserServer::GetRingBase(Bytes payload) {
  const auto state = ParseVringState(payload);
  if (!state || state->index >= kRings) return "bad ring base request";
  StopDevice();
  Ring& ring = rings_[state->index];
  kicks_[state->index].Stop();
  ring.kick.Reset();
  ring.queue.Detach();
  const uint32_t reply[2] = {state->index, ring.base};
  return Reply({reinterpret_cast<const uint8_t*>(reply), sizeof reply}) ? nullptr : "reply not taken";
}

// The configuration space is the guest's CID, eight bytes (virtio 1.2, section 5.10.4).
const char* VhostUserServer::GetConfig(Bytes payload) {
  const auto range = ParseConfigRange(payload);
  if (!range) return "bad configuration request";
  if (range->offset > sizeof guest_cid_ || range->size > sizeof guest_cid_ - range->offset) {
    return Reply({}) ? nullptr : "reply not taken";  // the protocol's way to say no
  }
  std::vector<uint8_t> reply(payload.begin(), payload.end());
  const size_t data = payload.size() - range->size;
  std::memcpy(reply.data() + data, reinterpret_cast<const uint8_t*>(&guest_cid_) + range->offset, range->size);
  return Reply(reply) ? nullptr : "reply not taken";
}

bool VhostUserServer::ReplyU64(uint64_t value) { return Reply({reinterpret_cast<const uint8_t*>(&value), sizeof value}); }

bool VhostUserServer::Reply(Bytes payload) {
  const std::vector<uint8_t> message = EncodeReply(header_.request, payload);
  const ssize_t sent = send(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent == static_cast<ssize_t>(message.size());
}

// Finds a ring's pointers in the current memory. A ring that cannot be found does not start: addresses and sizes are
// the guest's choice, and it harms only itself.
void VhostUserServer::Resolve(size_t index) {
  Ring& ring = rings_[index];
  ring.queue.Detach();
  if (!ring.kick || !ring.addresses_set || map_ == nullptr) return;
  if (!ring.queue.Attach(map_->memory(), ring.size, ring.addresses)) {
    events_.ProtocolError("ring", "ring outside memory, misaligned or of bad size");
  }
}

void VhostUserServer::StopDevice() {
  if (!device_.started()) return;
  for (Ring& ring : rings_) ring.base = ring.queue.next_avail();
  device_.Stop();
}

void VhostUserServer::StartDeviceIfPossible() {
  if (device_.started() || !rings_[0].CanRun() || !rings_[1].CanRun()) return;
  for (Ring& ring : rings_) {
    ring.queue.SetFeatures((features_ & kEventIndex) != 0, (features_ & kIndirect) != 0);
    ring.queue.Resume(ring.base);
  }
  device_.Start(rings_[0], rings_[1]);
}

void VhostUserServer::Lose(const char* violation) {
  StopDevice();
  watch_.Stop();
  for (size_t index = 0; index < kRings; ++index) {
    kicks_[index].Stop();
    rings_[index].queue.Detach();
  }
  socket_.Reset();
  map_.reset();
  if (violation != nullptr) events_.ProtocolError("front-end", violation);
  if (on_lost_) on_lost_(violation != nullptr);
}

}  // namespace caisson::pod
