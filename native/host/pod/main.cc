// caisson-pod: the small process that stays with one VM. It is the VM's vsock device and the VMM's parent.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>

#include "options.h"
#include "supervisor.h"

namespace {

// Streams take a descriptor each, up to 1023 of them.
constexpr rlim_t kDescriptors = 2048;

void LimitSelf() {
  // The VMM holds the guest's memory. 1 and not 0: with 0 the kernel still pipes a core to a core_pattern program.
  const rlimit no_core{1, 1};
  setrlimit(RLIMIT_CORE, &no_core);
  rlimit descriptors{};
  if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0 && descriptors.rlim_cur < kDescriptors) {
    descriptors.rlim_cur = std::min(kDescriptors, descriptors.rlim_max);
    setrlimit(RLIMIT_NOFILE, &descriptors);
  }
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  umask(0077);
  signal(SIGPIPE, SIG_IGN);
}

}  // namespace

int main(int argc, char** argv) {
  caisson::pod::Options options;
  const std::string problem = caisson::pod::ParseOptions(argc, argv, options);
  if (!problem.empty()) {
    std::fprintf(stderr, "caisson-pod: %s\n\n%s", problem.c_str(), caisson::pod::kUsage);
    return 2;
  }
  LimitSelf();
  return caisson::pod::Supervisor(options).Run();
}
