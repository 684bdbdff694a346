// A split virtqueue, seen from the device (virtio 1.2, section 2.7).
//
// The rings lie in memory that a hostile guest writes while we read: each index and descriptor is copied once and
// checked before it is used. A queue that breaks a rule is broken until it is attached anew. Pure: needs only GuestMemory.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "guest_memory.h"

namespace caisson::pod {

inline constexpr uint16_t kMaxQueueSize = 1024;       // entries; also keeps every chain below IOV_MAX segments
inline constexpr uint32_t kMaxIndirectEntries = 1024;
inline constexpr uint32_t kMaxChainBytes = 1 << 20;

// One descriptor chain: segments of guest memory, first those the device reads, then those it writes.
struct Chain {
  uint16_t head = 0;
  std::vector<iovec> readable;
  std::vector<iovec> writable;
  uint32_t readable_bytes = 0;
  uint32_t writable_bytes = 0;
};

// Ring addresses as vhost-user gives them: virtual addresses of the VMM.
struct RingAddresses {
  uint64_t descriptors = 0;
  uint64_t used = 0;
  uint64_t avail = 0;
};

enum class PopResult { kChain, kEmpty, kBroken };

class Virtqueue {
 public:
  // Resolves the rings; false (and detached) when the size is not a power of two up to kMaxQueueSize, or a ring is
  // misaligned or not inside `memory`, which must outlive the attachment.
  bool Attach(const GuestMemory& memory, uint32_t size, const RingAddresses& addresses);
  void Detach();
  bool attached() const { return memory_ != nullptr; }

  // Features agreed with the driver; to be set before chains are taken.
  void SetFeatures(bool event_index, bool indirect);

  // Where to continue: the avail position from SET_VRING_BASE; the used position is read from guest memory.
  void Resume(uint16_t next_avail);
  uint16_t next_avail() const { return next_avail_; }
  uint16_t used_index() const { return used_index_; }

  // Takes the next chain the driver made available.
  PopResult Pop(Chain& chain);
  // Gives back the chain that was popped last and not used.
  void PutBack() { --next_avail_; }
  // Returns a chain with the number of bytes written to it.
  void Push(uint16_t head, uint32_t written);

  // True when the driver wants an interrupt for what was pushed since the last call.
  bool TakeInterruptDecision();
  // Asks the driver to notify about the next chain. True when one is there already, so that nobody would notify.
  bool AskForKick();

  // Why Pop said kBroken, a fixed text; null while the queue is sound.
  const char* fault() const { return fault_; }

 private:
  bool Walk(uint16_t head, Chain& chain);
  bool Fault(const char* reason);

  const GuestMemory* memory_ = nullptr;
  uint8_t* descriptors_ = nullptr;
  uint8_t* avail_ = nullptr;
  uint8_t* used_ = nullptr;
  uint16_t size_ = 0;
  uint16_t next_avail_ = 0;
  uint16_t used_index_ = 0;
  uint16_t signalled_ = 0;  // used index at the last interrupt decision
  bool signalled_once_ = false;
  bool event_index_ = false;
  bool indirect_ = false;
  const char* fault_ = nullptr;
};

}  // namespace caisson::pod
