#include "virtqueue.h"

#include <atomic>
#include <bit>

namespace caisson::pod {
namespace {

// virtio 1.2, 2.7.5, 2.7.6 and 2.7.8. All fields are little-endian, as is every host this is built for.
static_assert(std::endian::native == std::endian::little);

struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Descriptor) == 16);

constexpr uint16_t kDescNext = 1;
constexpr uint16_t kDescWrite = 2;
constexpr uint16_t kDescIndirect = 4;
constexpr uint16_t kAvailNoInterrupt = 1;

constexpr size_t kAvailFlags = 0, kAvailIndex = 2, kAvailRing = 4;
constexpr size_t kUsedIndex = 2, kUsedRing = 4, kUsedElement = 8;

uint16_t Load(const uint8_t* at, std::memory_order order) {
  // Alignment was checked when the ring was attached. atomic_ref wants a mutable object; nothing is written.
  auto* value = reinterpret_cast<uint16_t*>(const_cast<uint8_t*>(at));
  return std::atomic_ref<uint16_t>(*value).load(order);
}

void Store(uint8_t* at, uint16_t value, std::memory_order order) {
  std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(at)).store(value, order);
}

bool Aligned(const uint8_t* pointer, uintptr_t alignment) {
  return reinterpret_cast<uintptr_t>(pointer) % alignment == 0;
}

}  // namespace

bool Virtqueue::Attach(const GuestMemory& memory, uint32_t size, const RingAddresses& addresses) {
  Detach();
  if (size > kMaxQueueSize || !std::has_single_bit(size)) return false;
  uint8_t* descriptors = memory.FromUserAddress(addresses.descriptors, sizeof(Descriptor) * uint64_t{size});
  uint8_t* avail = memory.FromUserAddress(addresses.avail, kAvailRing + 2 * uint64_t{size} + 2);
  uint8_t* used = memory.FromUserAddress(addresses.used, kUsedRing + kUsedElement * uint64_t{size} + 2);
  if (descriptors == nullptr || avail == nullptr || used == nullptr) return false;
  if (!Aligned(descriptors, 16) || !Aligned(avail, 2) || !Aligned(used, 4)) return false;
  memory_ = &memory;
  descriptors_ = descriptors;
  avail_ = avail;
  used_ = used;
  size_ = static_cast<uint16_t>(size);
  used_index_ = Load(used_ + kUsedIndex, std::memory_order_relaxed);
  return true;
}

void Virtqueue::Detach() {
  memory_ = nullptr;
  descriptors_ = avail_ = used_ = nullptr;
}

void Virtqueue::SetFeatures(bool event_index, bool indirect) {
  event_index_ = event_index;
  indirect_ = indirect;
}

void Virtqueue::Resume(uint16_t next_avail) {
  next_avail_ = next_avail;
  used_index_ = Load(used_ + kUsedIndex, std::memory_order_relaxed);
  signalled_ = used_index_;
  signalled_once_ = false;
  fault_ = nullptr;
}

PopResult Virtqueue::Pop(Chain& chain) {
  if (fault_ != nullptr) return PopResult::kBroken;
  const uint16_t pending = Load(avail_ + kAvailIndex, std::memory_order_acquire) - next_avail_;
  if (pending == 0) return PopResult::kEmpty;
  if (pending > size_) {
    Fault("avail index ran ahead");
    return PopResult::kBroken;
  }
  const size_t slot = kAvailRing + 2 * size_t{static_cast<uint16_t>(next_avail_ % size_)};
  const uint16_t head = Load(avail_ + slot, std::memory_order_relaxed);
  if (!Walk(head, chain)) return PopResult::kBroken;
  ++next_avail_;
  return PopResult::kChain;
}

// Collects the segments of a chain. Bounded by the table's length, whatever the links say.
bool Virtqueue::Walk(uint16_t head, Chain& chain) {
  chain.head = head;
  chain.readable.clear();
  chain.writable.clear();
  chain.readable_bytes = chain.writable_bytes = 0;
  if (head >= size_) return Fault("head outside the table");

  const uint8_t* table = descriptors_;
  uint32_t entries = size_;
  uint32_t index = head;
  bool inside_indirect = false;
  for (uint32_t steps = 0; steps < entries;) {
    Descriptor descriptor;
    CopyFromGuest(&descriptor, table + sizeof(Descriptor) * index, sizeof descriptor);
    ++steps;

    if ((descriptor.flags & kDescIndirect) != 0) {
      if (!indirect_) return Fault("indirect table not negotiated");
      if (inside_indirect) return Fault("indirect table inside an indirect table");
      if ((descriptor.flags & kDescNext) != 0) return Fault("indirect descriptor with a successor");
      // Deviation: 2.7.5.3.1 lets direct descriptors precede the table. No known driver does, and it would let one chain
      // exceed both bounds.
      if (steps != 1) return Fault("indirect descriptor not first");
      if (descriptor.length == 0 || descriptor.length % sizeof(Descriptor) != 0 ||
          descriptor.length / sizeof(Descriptor) > kMaxIndirectEntries) {
        return Fault("indirect table of bad length");
      }
      table = memory_->FromGuestAddress(descriptor.address, descriptor.length);
      if (table == nullptr) return Fault("indirect table outside memory");
      entries = static_cast<uint32_t>(descriptor.length / sizeof(Descriptor));
      index = steps = 0;
      inside_indirect = true;
      continue;
    }

    if (descriptor.length > kMaxChainBytes - chain.readable_bytes - chain.writable_bytes) return Fault("chain too long");
    uint8_t* host = memory_->FromGuestAddress(descriptor.address, descriptor.length);
    if (host == nullptr) return Fault("buffer outside memory");
    if ((descriptor.flags & kDescWrite) != 0) {
      chain.writable.push_back({host, descriptor.length});
      chain.writable_bytes += descriptor.length;
    } else {
      if (!chain.writable.empty()) return Fault("readable buffer after a writable one");
      chain.readable.push_back({host, descriptor.length});
      chain.readable_bytes += descriptor.length;
    }
    if ((descriptor.flags & kDescNext) == 0) return true;
    if (descriptor.next >= entries) return Fault("successor outside the table");
    index = descriptor.next;
  }
  return Fault("chain loops");
}

void Virtqueue::Push(uint16_t head, uint32_t written) {
  const uint32_t element[2] = {head, written};
  std::memcpy(used_ + kUsedRing + kUsedElement * size_t{static_cast<uint16_t>(used_index_ % size_)}, element,
              sizeof element);
  ++used_index_;
  Store(used_ + kUsedIndex, used_index_, std::memory_order_release);
}

bool Virtqueue::TakeInterruptDecision() {
  const uint16_t old = signalled_;
  if (used_index_ == old) return false;
  signalled_ = used_index_;
  // The driver writes its wish and then looks at the used index; we wrote the index and now look at its wish (2.7.7.2).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!event_index_) return (Load(avail_ + kAvailFlags, std::memory_order_relaxed) & kAvailNoInterrupt) == 0;
  const bool first = !signalled_once_;
  signalled_once_ = true;
  const uint16_t wished = Load(avail_ + kAvailRing + 2 * size_t{size_}, std::memory_order_relaxed);
  return first || static_cast<uint16_t>(used_index_ - wished - 1) < static_cast<uint16_t>(used_index_ - old);
}

bool Virtqueue::AskForKick() {
  // Without event index the driver always notifies: the used ring's flags stay 0, as the driver made them.
  if (event_index_) Store(used_ + kUsedRing + kUsedElement * size_t{size_}, next_avail_, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return Load(avail_ + kAvailIndex, std::memory_order_acquire) != next_avail_;
}

bool Virtqueue::Fault(const char* reason) {
  fault_ = reason;
  return false;
}

}  // namespace caisson::pod
