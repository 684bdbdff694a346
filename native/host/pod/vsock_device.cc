#include "vsock_device.h"

#include "unix_socket.h"

namespace caisson::pod {
namespace {

// Fairness between the rings, and between the guest and everything else in the loop.
constexpr int kTransmitChainsPerTurn = 128;
constexpr int kReceiveBuffersPerTurn = 512;

constexpr size_t kMaxConnections = 1023;
// A guest can cause a reset for each packet it sends; beyond this many it must take some before it may send more.
constexpr size_t kMaxPendingResets = 2048;

// A hostile guest may make us hold this much for each stream. 64 wide ones and the rest narrow bound it to 46 MiB.
constexpr size_t kWideConnections = 64;
constexpr uint32_t kWideBufferBytes = 256 * 1024;
constexpr uint32_t kNarrowBufferBytes = 32 * 1024;

// Host ports count up from here with the top bit clear, as in Firecracker.
constexpr uint32_t kFirstHostPort = 1U << 30;
constexpr uint32_t kLastHostPort = (1U << 31) - 1;

}  // namespace

VsockDevice::VsockDevice(EventLoop& loop, Events& events, uint64_t guest_cid, std::string vsock_path)
    : loop_(loop),
      events_(events),
      guest_cid_(guest_cid),
      vsock_path_(std::move(vsock_path)),
      next_host_port_(kFirstHostPort) {}

void VsockDevice::Start(Ring& receive, Ring& transmit) {
  // A new driver starts at the rings' beginning; a paused one goes on where it was.
  const bool fresh = receive.queue.next_avail() == 0 && transmit.queue.next_avail() == 0 &&
                     receive.queue.used_index() == 0 && transmit.queue.used_index() == 0;
  receive_ = &receive;
  transmit_ = &transmit;
  broken_ = false;
  transmit_pending_ = true;  // both rings may hold chains whose notification is long gone
  receive_starved_ = false;
  if (fresh) {
    EndAll();
    resets_.clear();
    if (ever_started_) events_.GuestReset();
  }
  events_.GuestConnected(ever_started_ && !fresh);
  ever_started_ = true;
  if (on_usable_) on_usable_();
}

void VsockDevice::Stop() {
  receive_ = nullptr;
  transmit_ = nullptr;
}

void VsockDevice::OnKick() {
  transmit_pending_ = true;
  receive_starved_ = false;
}

bool VsockDevice::Serve() {
  if (!usable()) return false;
  bool more = ServeTransmit();
  // Receiving drains the resets that may have stopped transmission, so it is asked last.
  if (usable()) more = ServeReceive() || more;
  return usable() && (more || (transmit_pending_ && resets_.size() < kMaxPendingResets));
}

bool VsockDevice::ServeTransmit() {
  for (int turn = 0; turn < kTransmitChainsPerTurn; ++turn) {
    if (!transmit_pending_ || resets_.size() >= kMaxPendingResets) break;
    const PopResult popped = transmit_->queue.Pop(chain_);
    if (popped == PopResult::kBroken) {
      Break(*transmit_);
      return false;
    }
    if (popped == PopResult::kEmpty) {
      transmit_pending_ = transmit_->queue.AskForKick();
      continue;
    }
    // A chain that is no packet goes back unused: nothing in it can be trusted to name a stream.
    if (chain_.writable.empty() && chain_.readable_bytes >= kPacketHeaderBytes) OnPacket();
    transmit_->queue.Push(chain_.head, 0);
  }
  transmit_->InterruptIfWanted();
  return false;
}

bool VsockDevice::ServeReceive() {
  bool have_chain = false;
  for (int turn = 0; turn < kReceiveBuffersPerTurn && !(ready_.empty() && resets_.empty());) {
    if (!have_chain) {
      ++turn;
      if (receive_starved_) break;
      const PopResult popped = receive_->queue.Pop(chain_);
      if (popped == PopResult::kBroken) {
        Break(*receive_);
        return false;
      }
      if (popped == PopResult::kEmpty) {
        receive_starved_ = !receive_->queue.AskForKick();
        continue;
      }
      if (!chain_.readable.empty() || chain_.writable_bytes < kPacketHeaderBytes) {
        receive_->queue.Push(chain_.head, 0);  // not a receive buffer: back, unused
        continue;
      }
      have_chain = true;
    }
    uint32_t written = 0;
    if (!resets_.empty()) {
      const ResetPacket reset = resets_.front();
      resets_.pop_front();
      PutPacketHeader({.source_cid = reset.source_cid,
                       .destination_cid = guest_cid_,
                       .source_port = reset.ports.host,
                       .destination_port = reset.ports.guest,
                       .type = reset.type,
                       .op = static_cast<uint16_t>(PacketOp::kReset)},
                      chain_.writable);
      written = kPacketHeaderBytes;
    } else {
      Connection& connection = ready_.TakeFirst();
      written = connection.NextPacket(chain_, guest_cid_);
      if (connection.HasPacket() && written > 0) ready_.Append(connection);
    }
    if (written == 0) continue;  // the buffer serves the next one
    receive_->queue.Push(chain_.head, written);
    have_chain = false;
  }
  if (have_chain) receive_->queue.PutBack();
  receive_->InterruptIfWanted();
  return !receive_starved_ && !(ready_.empty() && resets_.empty());
}

// Judges the packet in chain_.
void VsockDevice::OnPacket() {
  const PacketHeader header = TakePacketHeader(chain_.readable);
  if (header.source_cid != guest_cid_) return;  // not even a reset: it would go to a CID that is not there
  const Connection::Ports ports{.host = header.destination_port, .guest = header.source_port};
  // Another machine's CID, or a socket type this device does not have.
  if (header.destination_cid != kHostCid || header.type != kTypeStream) return Reject(header);

  const auto found = connections_.find(ports.Key());
  if (found == connections_.end()) return OnRequest(header, ports);
  Connection& connection = *found->second;
  // A length that does not fit the chain: the stream is out of step.
  const uint32_t available = chain_.readable_bytes - kPacketHeaderBytes;
  if (header.length > available || header.length > kMaxPayloadBytes) return End(connection, true);
  TruncateSegments(chain_.readable, header.length);
  switch (connection.OnPacket(header, chain_.readable)) {
    case Connection::Verdict::kKeep:
      if (connection.HasPacket()) ready_.Append(connection);
      return;
    case Connection::Verdict::kReset:
      return End(connection, true);
    case Connection::Verdict::kEnd:
      return End(connection, false);
  }
}

// A packet for no stream that exists: good only as a request for one.
void VsockDevice::OnRequest(const PacketHeader& header, Connection::Ports ports) {
  if (header.op != static_cast<uint16_t>(PacketOp::kRequest) || Full()) return Reject(header);
  UniqueFd host = ConnectUnix(vsock_path_ + "_" + std::to_string(ports.host));
  if (!host) return Reject(header);
  Connection* connection = Add(std::move(host), ports, Connection::State::kOpen);
  std::vector<iovec> nothing;
  PacketHeader credit = header;
  credit.op = static_cast<uint16_t>(PacketOp::kCreditUpdate);
  connection->OnPacket(credit, nothing);
  ready_.Append(*connection);
}

// Answers with a reset; a reset itself is never answered.
void VsockDevice::Reject(const PacketHeader& header) {
  if (header.op == static_cast<uint16_t>(PacketOp::kReset)) return;
  resets_.push_back({.source_cid = header.destination_cid,
                     .ports = {.host = header.destination_port, .guest = header.source_port},
                     .type = header.type});
}

void VsockDevice::Dial(UniqueFd host, uint32_t guest_port) {
  if (Full()) return;
  Connection::Ports ports{.host = next_host_port_, .guest = guest_port};
  while (connections_.contains(ports.Key())) ports.host = ports.host == kLastHostPort ? kFirstHostPort : ports.host + 1;
  next_host_port_ = ports.host == kLastHostPort ? kFirstHostPort : ports.host + 1;
  ready_.Append(*Add(std::move(host), ports, Connection::State::kAsked));
}

Connection* VsockDevice::Add(UniqueFd host, Connection::Ports ports, Connection::State state) {
  const uint32_t buffer_bytes = connections_.size() < kWideConnections ? kWideBufferBytes : kNarrowBufferBytes;
  auto connection = std::make_unique<Connection>(loop_, *this, std::move(host), ports, buffer_bytes, state);
  return connections_.emplace(ports.Key(), std::move(connection)).first->second.get();
}

void VsockDevice::End(Connection& connection, bool reset) {
  ready_.Remove(connection);
  const Connection::Ports ports = connection.ports();
  if (reset && connection.known_to_guest()) {
    resets_.push_back({.source_cid = kHostCid, .ports = ports, .type = kTypeStream});
  }
  auto node = connections_.extract(ports.Key());
  if (connection.Linger()) lingering_.emplace(&connection, std::move(node.mapped()));
}

void VsockDevice::EndAll() {
  while (!connections_.empty()) End(*connections_.begin()->second, false);
}

void VsockDevice::OnHostActivity(Connection& connection) {
  if (connection.state() == Connection::State::kLingering) {
    if (connection.finished_lingering()) lingering_.erase(&connection);
    return;
  }
  if (connection.abandoned()) return End(connection, true);
  if (connection.HasPacket()) ready_.Append(connection);
}

void VsockDevice::OnTimeout(Connection& connection) { End(connection, true); }

bool VsockDevice::Full() const { return connections_.size() + lingering_.size() >= kMaxConnections; }

void VsockDevice::Break(Ring& ring) {
  broken_ = true;
  ring.ReportBroken();
  events_.ProtocolError("ring", ring.queue.fault());
  EndAll();
  resets_.clear();
}

}  // namespace caisson::pod
