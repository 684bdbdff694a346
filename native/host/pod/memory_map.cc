#include "memory_map.h"

#include <sys/mman.h>
#include <sys/stat.h>

namespace caisson::pod {

std::unique_ptr<MemoryMap> MemoryMap::Create(std::span<const MemoryTableEntry> entries, std::span<const UniqueFd> fds) {
  if (entries.size() != fds.size()) return nullptr;
  std::unique_ptr<MemoryMap> map(new MemoryMap);
  std::vector<MemoryRegion> regions;
  for (size_t index = 0; index < entries.size(); ++index) {
    const MemoryTableEntry& entry = entries[index];
    uint64_t length = 0, ignored = 0;
    if (entry.size == 0 || __builtin_add_overflow(entry.size, entry.mmap_offset, &length)) return nullptr;
    if (__builtin_add_overflow(entry.guest_address, entry.size, &ignored)) return nullptr;
    if (__builtin_add_overflow(entry.user_address, entry.size, &ignored)) return nullptr;

    // Touching a mapping beyond the file's end would kill this process.
    struct stat status;
    if (fstat(fds[index].get(), &status) != 0 || status.st_size < 0) return nullptr;
    if (length > static_cast<uint64_t>(status.st_size)) return nullptr;

    // From the file's start: the offset need not be a multiple of the page size.
    void* address = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fds[index].get(), 0);
    if (address == MAP_FAILED) return nullptr;
    map->mappings_.push_back({address, length});
    madvise(address, length, MADV_DONTDUMP);
    regions.push_back({
        .guest_address = entry.guest_address,
        .user_address = entry.user_address,
        .size = entry.size,
        .host = static_cast<uint8_t*>(address) + entry.mmap_offset,
    });
  }
  map->memory_ = GuestMemory(std::move(regions));
  return map;
}

MemoryMap::~MemoryMap() {
  for (const Mapping& mapping : mappings_) munmap(mapping.address, mapping.length);
}

}  // namespace caisson::pod
