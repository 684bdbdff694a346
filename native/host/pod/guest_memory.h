// Where guest memory lies in this process, and the only way from an address the guest chose to a pointer.
//
// Pure: knows nothing of descriptors or mappings, so rings can be walked over any buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace caisson::pod {

// One contiguous piece of guest memory. Addresses and size in bytes; `host` points at its first byte.
struct MemoryRegion {
  uint64_t guest_address = 0;  // guest physical: descriptors use it
  uint64_t user_address = 0;   // the VMM's virtual: ring addresses use it
  uint64_t size = 0;
  uint8_t* host = nullptr;
};

class GuestMemory {
 public:
  GuestMemory() = default;
  explicit GuestMemory(std::vector<MemoryRegion> regions) : regions_(std::move(regions)) {}

  // Null unless all of [address, address + length) lies in one region.
  uint8_t* FromGuestAddress(uint64_t address, uint64_t length) const;
  uint8_t* FromUserAddress(uint64_t address, uint64_t length) const;

  const std::vector<MemoryRegion>& regions() const { return regions_; }

 private:
  std::vector<MemoryRegion> regions_;
};

// Copies bytes out of guest memory exactly once: the guest may rewrite them at any time, so what is checked must be what
// is used. The barrier keeps the compiler from reading the original again.
inline void CopyFromGuest(void* to, const void* from, size_t length) {
  std::memcpy(to, from, length);
  asm volatile("" ::: "memory");
}

}  // namespace caisson::pod
