#include "guest_memory.h"

namespace caisson::pod {
namespace {

// Subtracts and never adds: address + length may wrap, both come from the guest.
uint8_t* Within(const MemoryRegion& region, uint64_t base, uint64_t address, uint64_t length) {
  if (address < base) return nullptr;
  const uint64_t offset = address - base;
  if (offset >= region.size || length > region.size - offset) return nullptr;
  return region.host + offset;
}

}  // namespace

uint8_t* GuestMemory::FromGuestAddress(uint64_t address, uint64_t length) const {
  for (const MemoryRegion& region : regions_) {
    if (uint8_t* host = Within(region, region.guest_address, address, length)) return host;
  }
  return nullptr;
}

uint8_t* GuestMemory::FromUserAddress(uint64_t address, uint64_t length) const {
  for (const MemoryRegion& region : regions_) {
    if (uint8_t* host = Within(region, region.user_address, address, length)) return host;
  }
  return nullptr;
}

}  // namespace caisson::pod
