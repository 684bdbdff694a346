#include "cgroup_program.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace caisson {
namespace {

constexpr size_t kInstructionBytes = 8;

int Bpf(int command, union bpf_attr& attributes) noexcept {
  const long result = syscall(SYS_bpf, command, &attributes, sizeof(attributes));
  return result < 0 ? -errno : static_cast<int>(result);
}

uint64_t Address(const void* pointer) noexcept { return reinterpret_cast<uintptr_t>(pointer); }

int Load(const std::vector<uint8_t>& program, uint32_t type, uint32_t attach) noexcept {
  static const char kLicense[] = "Apache-2.0";
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof(attributes));
  attributes.prog_type = type;
  attributes.expected_attach_type = attach;
  attributes.insns = Address(program.data());
  attributes.insn_cnt = static_cast<uint32_t>(program.size() / kInstructionBytes);
  attributes.license = Address(kLicense);
  return Bpf(BPF_PROG_LOAD, attributes);
}

}  // namespace

int AttachCgroupProgram(const std::string& cgroup, const std::vector<uint8_t>& program, uint32_t type,
                        uint32_t attach) noexcept {
  if (program.empty() || program.size() % kInstructionBytes != 0) return -EINVAL;
  const int group = open(cgroup.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (group < 0) return -errno;
  const int loaded = Load(program, type, attach);
  if (loaded < 0) {
    close(group);
    return loaded;
  }
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof(attributes));
  attributes.target_fd = static_cast<uint32_t>(group);
  attributes.attach_bpf_fd = static_cast<uint32_t>(loaded);
  attributes.attach_type = attach;
  attributes.attach_flags = BPF_F_ALLOW_MULTI;
  const int result = Bpf(BPF_PROG_ATTACH, attributes);
  close(loaded);
  close(group);
  return result;
}

}  // namespace caisson
