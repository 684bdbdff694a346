// Maps the memory a VMM offers with SET_MEM_TABLE.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "guest_memory.h"
#include "unique_fd.h"
#include "vhost_user_message.h"

namespace caisson::pod {

class MemoryMap {
 public:
  // Null when a region is not wholly inside its file, wraps, or cannot be mapped. Descriptors may be closed afterwards.
  static std::unique_ptr<MemoryMap> Create(std::span<const MemoryTableEntry> entries, std::span<const UniqueFd> fds);
  ~MemoryMap();
  MemoryMap(const MemoryMap&) = delete;
  MemoryMap& operator=(const MemoryMap&) = delete;

  const GuestMemory& memory() const { return memory_; }

 private:
  struct Mapping {
    void* address;
    size_t length;
  };
  MemoryMap() = default;

  std::vector<Mapping> mappings_;
  GuestMemory memory_;
};

}  // namespace caisson::pod
