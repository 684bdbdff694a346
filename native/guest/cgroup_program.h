// Programs of the kernel's virtual machine on a control group (bpf(2)). Results are non-negative or -errno.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson {

// Loads a program and attaches it to a control group, which keeps it until the group is gone. `program` holds whole
// instructions of eight bytes; `type` and `attach` are constants of linux/bpf.h.
int AttachCgroupProgram(const std::string& cgroup, const std::vector<uint8_t>& program, uint32_t type,
                        uint32_t attach) noexcept;

}  // namespace caisson
