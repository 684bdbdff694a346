#include "confine.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <grp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "seccomp.h"

namespace caisson {

namespace {

constexpr int kExitTimeout = 124;
constexpr uid_t kNobody = 65534;

void Limit(__rlimit_resource resource, uint64_t value) {
  const rlimit both = {value, value};
  if (setrlimit(resource, &both) < 0) Fail("setrlimit");
}

void OutOfTime(int) {
  constexpr char kText[] = "caisson-index: out of time\n";
  [[maybe_unused]] const ssize_t count = write(STDERR_FILENO, kText, sizeof kText - 1);
  _exit(kExitTimeout);
}

}  // namespace

void Fail(const char* what) {
  std::fprintf(stderr, "caisson-index: %s: %s\n", what, std::strerror(errno));
  _exit(kExitSetup);
}

void Confine(const Limits& limits) {
  const bool root = geteuid() == 0;
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) Fail("PR_SET_PDEATHSIG");
  // A network namespace of its own has no way out. Without root that needs a user namespace, which a machine may forbid;
  // the system call filter denies sockets in any case.
  if (root && unshare(CLONE_NEWNET | CLONE_NEWIPC) < 0) Fail("unshare");
  if (!root) [[maybe_unused]] const int attempted = unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC);
  Limit(RLIMIT_CPU, limits.seconds);
  Limit(RLIMIT_DATA, limits.memory_mib << 20);
  Limit(RLIMIT_FSIZE, limits.file_mib << 20);
  Limit(RLIMIT_CORE, 0);
  // A file that grows too large is an error to whoever writes it.
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGALRM, OutOfTime);
  alarm(static_cast<unsigned>(limits.seconds));
  if (root) {
    if (setgroups(0, nullptr) < 0) Fail("setgroups");
    if (setresgid(kNobody, kNobody, kNobody) < 0) Fail("setresgid");
    if (setresuid(kNobody, kNobody, kNobody) < 0) Fail("setresuid");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) Fail("PR_SET_NO_NEW_PRIVS");
  if (restrict_system_calls() < 0) Fail("seccomp");
}

}  // namespace caisson
