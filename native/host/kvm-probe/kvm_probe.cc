// caisson-kvm-probe: finds out whether KVM can run a guest here, by running one.
//
// Opening /dev/kvm proves little: on hosts that are guests themselves it may open although the CPU shows no hardware
// virtualisation, and ordinary kernels then hang. So the facts are taken one by one: what CPUID says, whether the device
// opens, and whether a guest of five instructions computes and halts. A program of its own, because KVM_RUN may never
// return: whoever starts it kills it when its time is over.
//
// Prints one JSON object: {"cpu":"vmx"|"svm"|"none","device":"open"|"absent"|"denied"|"failed","errno":N,
// "guest":"ran"|"not-tried"|"failed","step":TEXT}; `step` is the last thing tried. Exit code 0 whatever the finding.
#include <cpuid.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace {

struct Findings {
  const char* cpu = "none";
  const char* device = "failed";
  const char* guest = "not-tried";
  const char* step = "open /dev/kvm";
  int error = 0;
};

constexpr uint64_t kGuestAddress = 0x1000;
constexpr size_t kPageBytes = 4096;
constexpr uint16_t kPort = 0xe9;

// Real mode: mov al, 0x2a; add al, bl; out 0xe9, al; hlt.
constexpr uint8_t kProgram[] = {0xb0, 0x2a, 0x00, 0xd8, 0xe6, 0xe9, 0xf4};
constexpr uint8_t kOperand = 0x15;
constexpr uint8_t kExpected = 0x2a + kOperand;

const char* CpuVirtualisation() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 5)) != 0) return "vmx";
  if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 2)) != 0) return "svm";
  return "none";
}

// Remembers the step, so that a failure can be named.
bool Step(Findings& findings, const char* step, bool succeeded) {
  findings.step = step;
  if (!succeeded) findings.error = errno;
  return succeeded;
}

bool RunGuest(int kvm, Findings& findings) {
  findings.guest = "failed";
  if (!Step(findings, "KVM_GET_API_VERSION", ioctl(kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION)) return false;
  const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (!Step(findings, "KVM_CREATE_VM", vm >= 0)) return false;

  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!Step(findings, "mmap", page != MAP_FAILED)) return false;
  std::memcpy(page, kProgram, sizeof kProgram);
  kvm_userspace_memory_region region{};
  region.guest_phys_addr = kGuestAddress;
  region.memory_size = kPageBytes;
  region.userspace_addr = reinterpret_cast<uintptr_t>(page);
  if (!Step(findings, "KVM_SET_USER_MEMORY_REGION", ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0)) return false;

  const int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  if (!Step(findings, "KVM_CREATE_VCPU", vcpu >= 0)) return false;
  const int run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (!Step(findings, "KVM_GET_VCPU_MMAP_SIZE", run_bytes >= static_cast<int>(sizeof(kvm_run)))) return false;
  void* shared = mmap(nullptr, static_cast<size_t>(run_bytes), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (!Step(findings, "mmap of the vCPU", shared != MAP_FAILED)) return false;

  kvm_sregs segments{};
  if (!Step(findings, "KVM_GET_SREGS", ioctl(vcpu, KVM_GET_SREGS, &segments) == 0)) return false;
  segments.cs.base = 0;
  segments.cs.selector = 0;
  if (!Step(findings, "KVM_SET_SREGS", ioctl(vcpu, KVM_SET_SREGS, &segments) == 0)) return false;
  kvm_regs registers{};
  registers.rip = kGuestAddress;
  registers.rbx = kOperand;
  registers.rflags = 2;
  if (!Step(findings, "KVM_SET_REGS", ioctl(vcpu, KVM_SET_REGS, &registers) == 0)) return false;

  const auto* run = static_cast<const volatile kvm_run*>(shared);
  if (!Step(findings, "KVM_RUN", ioctl(vcpu, KVM_RUN, 0) == 0)) return false;
  const auto* output = static_cast<const volatile uint8_t*>(shared) + run->io.data_offset;
  if (!Step(findings, "output of the guest", run->exit_reason == KVM_EXIT_IO && run->io.port == kPort && *output == kExpected)) {
    return false;
  }
  if (!Step(findings, "KVM_RUN", ioctl(vcpu, KVM_RUN, 0) == 0)) return false;
  if (!Step(findings, "halt of the guest", run->exit_reason == KVM_EXIT_HLT)) return false;
  findings.guest = "ran";
  return true;
}

}  // namespace

int main() {
  Findings findings;
  findings.cpu = CpuVirtualisation();
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm >= 0) {
    findings.device = "open";
    RunGuest(kvm, findings);
  } else {
    findings.error = errno;
    if (errno == ENOENT || errno == ENXIO || errno == ENODEV) findings.device = "absent";
    if (errno == EACCES || errno == EPERM) findings.device = "denied";
  }
  std::printf("{\"cpu\":\"%s\",\"device\":\"%s\",\"errno\":%d,\"guest\":\"%s\",\"step\":\"%s\"}\n", findings.cpu,
              findings.device, findings.error, findings.guest, findings.step);
  return 0;
}
