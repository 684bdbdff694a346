#include "connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace caisson::pod {
namespace {

// A guest that does not answer a request, or the end of a stream: Linux guests give up themselves after 2 s and 8 s.
constexpr uint64_t kAnswerLimitMs = 30'000;
constexpr uint64_t kShutdownLimitMs = 8'000;

// Unread input to swallow before a close, see ~Connection.
constexpr int kDrainReads = 64;

constexpr uint32_t kBothWays = kShutdownReceive | kShutdownSend;

}  // namespace

Connection::Connection(EventLoop& loop, ConnectionOwner& owner, UniqueFd host, Ports ports, uint32_t buffer_bytes,
                       State state)
    : owner_(owner),
      host_(std::move(host)),
      watch_(loop),
      timer_(loop, *this),
      ports_(ports),
      state_(state),
      credit_(buffer_bytes) {
  UpdateWatch();
  if (state == State::kAsked) timer_.Arm(kAnswerLimitMs);
}

Connection::~Connection() {
  watch_.Stop();
  // Closing a Unix socket with unread input makes the peer's next read fail with ECONNRESET, even though it could have
  // read everything we sent. A program whose last words nobody wanted should see a plain end of file.
  uint8_t sink[4096];
  for (int reads = 0; reads < kDrainReads; ++reads) {
    if (recv(host_.get(), sink, sizeof sink, MSG_DONTWAIT) <= 0) break;
  }
}

Connection::Verdict Connection::OnPacket(const PacketHeader& header, std::vector<iovec>& payload) {
  credit_.OnPeerState(header.buffer_bytes, header.forwarded_bytes);
  switch (static_cast<PacketOp>(header.op)) {
    case PacketOp::kReset:
      return Verdict::kEnd;
    case PacketOp::kRequest:
      return Verdict::kReset;  // this pair of ports is taken
    case PacketOp::kResponse:
      if (state_ != State::kAsked) return Verdict::kKeep;
      if (handshake_due_ || !SendOkLine()) return Verdict::kReset;
      timer_.Disarm();
      state_ = State::kOpen;
      host_readable_ = true;  // the client may have sent bytes behind its line
      return Verdict::kKeep;
    case PacketOp::kShutdown:
      if (state_ == State::kAsked) return Verdict::kReset;
      OnGuestShutdown(header.flags & kBothWays);
      return guest_shutdown_ == kBothWays ? Verdict::kReset : Verdict::kKeep;
    case PacketOp::kData:
      if (state_ == State::kAsked || (guest_shutdown_ & kShutdownSend) != 0) return Verdict::kReset;
      if (!credit_.Accepts(static_cast<uint32_t>(held()), header.length)) return Verdict::kReset;
      Deliver(payload, header.length);
      return Verdict::kKeep;
    case PacketOp::kCreditRequest:
      credit_asked_ = true;
      return Verdict::kKeep;
    case PacketOp::kCreditUpdate:
      return Verdict::kKeep;
  }
  return Verdict::kKeep;  // an op this version does not know, on a stream that exists: 5.10.6 lets it pass
}

bool Connection::HasPacket() const {
  if (state_ == State::kLingering) return false;
  if (handshake_due_) return true;
  if (state_ != State::kOpen) return false;
  return (due_shutdown_ & ~told_shutdown_) != 0 || credit_asked_ || credit_.UpdateDue() || CanRead();
}

uint32_t Connection::NextPacket(Chain& buffer, uint64_t guest_cid) {
  PacketHeader header{
      .source_cid = kHostCid,
      .destination_cid = guest_cid,
      .source_port = ports_.host,
      .destination_port = ports_.guest,
      .buffer_bytes = credit_.buffer_bytes(),
  };
  PacketOp op;
  if (handshake_due_) {
    handshake_due_ = false;
    op = state_ == State::kAsked ? PacketOp::kRequest : PacketOp::kResponse;
  } else if (state_ != State::kOpen) {
    return 0;
  } else if ((due_shutdown_ & ~told_shutdown_) == 0 && CanRead() && (header.length = ReadInto(buffer)) > 0) {
    op = PacketOp::kData;
  } else if ((due_shutdown_ & ~told_shutdown_) != 0) {
    op = PacketOp::kShutdown;
    header.flags = told_shutdown_ = due_shutdown_;
    if (told_shutdown_ == kBothWays) timer_.Arm(kShutdownLimitMs);
  } else if (credit_asked_ || credit_.UpdateDue()) {
    op = PacketOp::kCreditUpdate;
  } else {
    return 0;
  }
  credit_asked_ = false;
  header.op = static_cast<uint16_t>(op);
  header.forwarded_bytes = credit_.Advertise();
  PutPacketHeader(header, buffer.writable);
  return kPacketHeaderBytes + header.length;
}

// Reads from the host straight into guest memory, behind the place of the header. 0 also when the host is at its end,
// which then is due to be told.
uint32_t Connection::ReadInto(Chain& buffer) {
  uint32_t limit = std::min(credit_.SendWindow(), kMaxPayloadBytes);
  limit = std::min(limit, buffer.writable_bytes - kPacketHeaderBytes);
  if (limit == 0) return 0;  // a buffer without room for payload
  static std::vector<iovec> segments;
  segments = buffer.writable;
  SkipPacketHeader(segments);
  TruncateSegments(segments, limit);
  const ssize_t bytes = readv(host_.get(), segments.data(), static_cast<int>(segments.size()));
  if (bytes > 0) {
    credit_.OnSent(static_cast<uint32_t>(bytes));
    return static_cast<uint32_t>(bytes);
  }
  if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) {
    host_readable_ = errno == EINTR;
    return 0;
  }
  if (bytes < 0) OnHostGone();
  host_eof_ = true;
  due_shutdown_ |= kShutdownSend;
  return 0;
}

bool Connection::Linger() {
  state_ = State::kLingering;
  timer_.Disarm();
  shutdown(host_.get(), SHUT_RD);
  return held() > 0 && !host_gone_;
}

void Connection::OnReady(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) host_readable_ = true;
  if ((events & EPOLLOUT) != 0 && held() > 0) FlushHeld();
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) OnHostGone();
  owner_.OnHostActivity(*this);
}

bool Connection::CanRead() const {
  return state_ == State::kOpen && host_readable_ && !host_eof_ && (guest_shutdown_ & kShutdownReceive) == 0 &&
         credit_.SendWindow() > 0;
}

bool Connection::SendOkLine() {
  char line[32];
  const int length = std::snprintf(line, sizeof line, "OK %u\n", ports_.host);
  // Nothing was sent on this socket before, so its buffer has room.
  return send(host_.get(), line, static_cast<size_t>(length), MSG_NOSIGNAL | MSG_DONTWAIT) == length;
}

void Connection::Deliver(std::vector<iovec>& payload, uint32_t length) {
  if (length == 0) return;
  if (host_gone_) {
    credit_.OnForwarded(length);
    return;
  }
  size_t sent = 0;
  if (held() == 0) {
    msghdr message{};
    message.msg_iov = payload.data();
    message.msg_iovlen = payload.size();
    const ssize_t bytes = sendmsg(host_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (bytes < 0 && errno != EAGAIN && errno != EINTR) {
      credit_.OnForwarded(length);
      OnHostGone();
      return;
    }
    sent = bytes < 0 ? 0 : static_cast<size_t>(bytes);
    credit_.OnForwarded(static_cast<uint32_t>(sent));
  }
  if (sent < length) Hold(payload, sent);
}

void Connection::Hold(const std::vector<iovec>& payload, size_t skip) {
  for (const iovec& segment : payload) {
    const size_t skipped = std::min(skip, segment.iov_len);
    const auto* start = static_cast<const uint8_t*>(segment.iov_base);
    held_.insert(held_.end(), start + skipped, start + segment.iov_len);
    skip -= skipped;
  }
  UpdateWatch();
}

void Connection::FlushHeld() {
  const ssize_t bytes = send(host_.get(), held_.data() + held_start_, held(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (bytes < 0) {
    if (errno != EAGAIN && errno != EINTR) OnHostGone();
    return;
  }
  held_start_ += static_cast<size_t>(bytes);
  credit_.OnForwarded(static_cast<uint32_t>(bytes));
  if (held() > 0) {
    // Appending behind a growing gap would make the buffer exceed what credit bounds.
    if (held_start_ >= held()) {
      held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(held_start_));
      held_start_ = 0;
    }
    return;
  }
  std::vector<uint8_t>().swap(held_);
  held_start_ = 0;
  UpdateWatch();
  if ((guest_shutdown_ & kShutdownSend) != 0) shutdown(host_.get(), SHUT_WR);
}

void Connection::OnGuestShutdown(uint32_t flags) {
  guest_shutdown_ |= flags;
  // Both make the host program notice: its writes fail, or its reads end once it has everything.
  if ((flags & kShutdownReceive) != 0) shutdown(host_.get(), SHUT_RD);
  if ((flags & kShutdownSend) != 0 && held() == 0) shutdown(host_.get(), SHUT_WR);
  if ((guest_shutdown_ & kShutdownReceive) != 0 && host_gone_) due_shutdown_ = kBothWays;
}

// Told at once: waiting for the unread rest of the host's bytes could wait for a guest that is itself stuck in a write.
void Connection::OnHostGone() {
  if (!host_gone_) {
    host_gone_ = true;
    credit_.OnForwarded(static_cast<uint32_t>(held()));
    std::vector<uint8_t>().swap(held_);
    held_start_ = 0;
  }
  due_shutdown_ |= (guest_shutdown_ & kShutdownReceive) != 0 ? kBothWays : kShutdownReceive;
}

void Connection::UpdateWatch() {
  const bool writable = held() > 0;
  const uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET | (writable ? uint32_t{EPOLLOUT} : 0);
  if (!watching_started_) {
    watching_started_ = watch_.Start(host_.get(), events, *this);
  } else if (writable != watching_writable_) {
    watch_.Change(events);
  }
  watching_writable_ = writable;
}

}  // namespace caisson::pod
