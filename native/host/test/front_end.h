// A VMM's side of vhost-user with hand-made rings, for breaking rules on purpose: what a hostile guest or a broken VMM
// could do to caisson-pod. Whatever is expected and does not happen ends the program with a message.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hostile {

// Ends the program with exit code 1.
[[noreturn]] void Fail(const std::string& what);
void Expect(bool condition, const std::string& what);

struct __attribute__((packed)) Packet {
  uint64_t source_cid = 3, destination_cid = 2;
  uint32_t source_port = 0, destination_port = 0, length = 0;
  uint16_t type = 1, op = 0;
  uint32_t flags = 0, buffer_bytes = 256 * 1024, forwarded = 0;
};
static_assert(sizeof(Packet) == 44);

inline constexpr size_t kHeaderBytes = 44;
enum Op : uint16_t { kRequest = 1, kResponse, kReset, kShutdown, kData, kCreditUpdate, kCreditRequest };
enum DescFlags : uint16_t { kNext = 1, kWrite = 2, kIndirect = 4 };

inline constexpr uint64_t kFeatures = 0x170000000;
inline constexpr uint64_t kNoIndirect = kFeatures & ~(1ULL << 28);
inline constexpr uint64_t kNoEventIndex = kFeatures & ~(1ULL << 29);

inline constexpr uint16_t kSize = 16;  // entries of each ring
inline constexpr size_t kMemoryBytes = 4 << 20;
inline constexpr uint64_t kGuestBase = 0x100000;  // of guest physical memory
inline constexpr uint64_t kUserBase = 0x7f0000001000;
inline constexpr uint64_t kBuffers = 0x10000;  // offset of the first byte that is no ring

class FrontEnd {
 public:
  FrontEnd(std::string vhost_path, std::string vsock_path);

  // --- messages
  void Connect();
  void Send(uint32_t request, const void* payload, uint32_t bytes, std::vector<int> fds = {}, uint32_t flags = 1);
  void SendU64(uint32_t request, uint64_t value, std::vector<int> fds = {}, uint32_t flags = 1);
  void SendState(uint32_t request, uint32_t index, uint32_t number);
  // Payload of the reply, which must be for this request.
  std::vector<uint8_t> Receive(uint32_t request);
  uint64_t ReceiveU64(uint32_t request);
  // The other side hangs up.
  void ExpectCut();
  int socket() const { return socket_; }
  int memory_fd() const { return memory_fd_; }
  const std::string& vhost_path() const { return vhost_path_; }
  const std::string& vsock_path() const { return vsock_path_; }

  // --- device life
  void Negotiate();
  void SendMemoryTable();
  void SetUpRing(uint32_t index, uint32_t size = kSize, int64_t shift_addresses = 0);
  void Enable(uint32_t index, bool enabled);
  // Everything a guest driver's start causes. Rings are zeroed unless `keep`, then they go on where they were.
  void Start(uint64_t features = kFeatures, bool keep = false);
  void Stop();

  // --- rings: 0 receives, 1 transmits
  uint8_t* At(uint64_t offset) { return memory_ + offset; }
  void SetDescriptor(uint32_t ring, uint16_t index, uint64_t address, uint32_t length, uint16_t flags, uint16_t next = 0);
  static void WriteDescriptor(void* at, uint64_t address, uint32_t length, uint16_t flags, uint16_t next = 0);
  // Makes chains available and notifies.
  void Offer(uint32_t ring, uint16_t head, uint16_t count = 1);
  void SetAvailIndex(uint32_t ring, uint16_t index);
  void Kick(uint32_t ring);
  uint16_t Used(uint32_t ring);
  uint32_t UsedLength(uint32_t ring, uint16_t position);
  void WaitUsed(uint32_t ring, uint16_t index);
  uint16_t avail(uint32_t ring) const { return avail_[ring]; }
  // The device gives the ring up.
  void ExpectBroken(uint32_t ring);

  // --- packets
  void Transmit(const Packet& packet, const std::string& payload = "");
  // Offers a receive buffer and waits for the packet in it.
  Packet Take(std::string* payload = nullptr);
  // Takes packets until one has this op; credit updates may come between.
  Packet TakeOp(uint16_t op, std::string* payload = nullptr);

  // --- host side
  int DialHost(uint32_t port);
  int ListenHost(uint32_t port);
  // A whole stream from a host client to the "guest" and back: the device is well.
  void ExpectAlive();
  // Leaves an open stream dialled by a host client: its socket, and the REQUEST's ports.
  int OpenStream(Packet& ports);

 private:
  uint64_t RingOffset(uint32_t ring) const { return 0x1000 + ring * uint64_t{0x4000}; }

  std::string vhost_path_, vsock_path_;
  int socket_ = -1;
  int memory_fd_ = -1;
  uint8_t* memory_ = nullptr;
  int kick_[2], call_[2], error_[2];
  uint16_t avail_[2] = {0, 0};
  uint16_t base_[2] = {0, 0};
  uint32_t next_port_ = 5000;
};

std::string ReadLine(int fd);
std::string ReadSome(int fd, size_t bytes);
void WriteAll(int fd, const std::string& bytes);
void ExpectEnd(int fd);

struct Case {
  const char* name;
  const char* title;  // a sentence about the behaviour
  void (*run)(FrontEnd&);
};
std::vector<Case> RingCases();
std::vector<Case> MessageCases();
std::vector<Case> PacketCases();
std::vector<Case> RandomCases();

}  // namespace hostile
