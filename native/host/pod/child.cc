#include "child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "unique_fd.h"

namespace caisson::pod {
namespace {

// Runs in the child, between fork and exec. Only returns when something failed.
void Become(const std::vector<std::string>& command, int log_fd, pid_t parent) {
  setpgid(0, 0);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return;
  if (getppid() != parent) _exit(127);  // it died before the line above took effect
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGPIPE, SIGINT, SIGHUP}) signal(number, SIG_DFL);
  const int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0) return;
  if (dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0) return;
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
}

}  // namespace

Child::~Child() {
  if (!running()) return;
  Kill();
  waitpid(pid_, nullptr, 0);
}

int Child::Start(const std::vector<std::string>& command, const std::string& log_path) {
  const UniqueFd log(open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!log) return -errno;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
  UniqueFd failure_reader(ends[0]), failure_writer(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return -errno;
  if (pid == 0) {
    Become(command, log.get(), parent);
    const int error = errno;
    [[maybe_unused]] const ssize_t written = write(failure_writer.get(), &error, sizeof error);
    _exit(127);
  }
  failure_writer.Reset();
  setpgid(pid, pid);  // here as well, so that the group exists before either side goes on
  int error = 0;
  if (read(failure_reader.get(), &error, sizeof error) == sizeof error) {
    waitpid(pid, nullptr, 0);
    return -error;
  }
  pid_ = pid;
  return 0;
}

void Child::Terminate() {
  if (running()) kill(pid_, SIGTERM);
}

void Child::Kill() {
  if (running()) kill(-pid_, SIGKILL);
}

bool Child::Reap(int& status) {
  if (!running()) return false;
  siginfo_t info{};
  // Left waitable until its group is dead: afterwards the number may belong to somebody else.
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != pid_) return false;
  Kill();
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return true;
}

}  // namespace caisson::pod
