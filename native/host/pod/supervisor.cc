#include "supervisor.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace caisson::pod {
namespace {

// The VMM closes its socket shortly before it exits. One that lives on has lost vsock for good: QEMU does not reconnect.
constexpr uint64_t kFrontEndLostLimitMs = 2000;
// For readers that have not taken everything when the VM ends.
constexpr uint64_t kFlushLimitMs = 2000;

constexpr int kUnavailable = 3;

}  // namespace

Supervisor::Supervisor(const Options& options)
    : options_(options),
      device_(loop_, events_, options.guest_cid, options.vsock_path),
      server_(loop_, events_, device_, options.guest_cid),
      clients_(loop_, device_, options.connect_hold_ms),
      signal_watch_(loop_),
      timer_(loop_, *this),
      leash_(*this) {}

int Supervisor::Run() {
  if (!Prepare()) return kUnavailable;
  events_.Listening(options_.vsock_path);
  if (const int error = child_.Start(options_.command, options_.log_path); error != 0) {
    Unavailable("cannot run", options_.command[0], error);
    return kUnavailable;
  }
  events_.VmStarted(child_.pid());
  leash_.Start();
  while (phase_ != Phase::kDone) {
    const bool busy = device_.Serve();
    loop_.RunOnce(busy);
    if (phase_ == Phase::kFlushing && !device_.lingering()) phase_ = Phase::kDone;
  }
  return exit_code_;
}

bool Supervisor::Prepare() {
  sigset_t handled;
  sigemptyset(&handled);
  for (const int number : {SIGTERM, SIGCHLD}) sigaddset(&handled, number);
  for (const int number : {SIGINT, SIGHUP}) {
    // A terminal's signals reach the owner as well, and what they mean for the VM is the owner's to say: it holds the
    // leash. Only somebody who runs this process by hand means it.
    if (isatty(STDIN_FILENO) == 1) {
      sigaddset(&handled, number);
    } else {
      signal(number, SIG_IGN);
    }
  }
  sigprocmask(SIG_BLOCK, &handled, nullptr);
  signals_.Reset(signalfd(-1, &handled, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!signals_ || !signal_watch_.Start(signals_.get(), EPOLLIN, *this)) {
    Unavailable("cannot receive", "signals", -errno);
    return false;
  }
  if (const int error = server_.Listen(options_.vhost_path); error != 0) {
    Unavailable("cannot listen on", options_.vhost_path, error);
    return false;
  }
  if (const int error = clients_.Listen(options_.vsock_path); error != 0) {
    Unavailable("cannot listen on", options_.vsock_path, error);
    return false;
  }
  server_.OnLost([this](bool violated) { OnFrontEndLost(violated); });
  device_.OnUsable([this] { clients_.OnDeviceUsable(); });
  return true;
}

void Supervisor::OnReady(uint32_t) {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD) {
      EndVm();
      continue;
    }
    int status = 0;
    if (child_.Reap(status)) OnVmEnded(status);
  }
}

void Supervisor::OnTimer() {
  switch (phase_) {
    case Phase::kFrontEndLost:
      return EndVm();
    case Phase::kTerminating:
      return child_.Kill();
    case Phase::kFlushing:
      phase_ = Phase::kDone;
      return;
    case Phase::kRunning:
    case Phase::kDone:
      return;
  }
}

void Supervisor::EndVm() {
  if (phase_ != Phase::kRunning && phase_ != Phase::kFrontEndLost) return;
  phase_ = Phase::kTerminating;
  child_.Terminate();
  timer_.Arm(options_.grace_ms);
}

void Supervisor::OnFrontEndLost(bool violated) {
  device_.EndAll();  // nobody can serve these streams any more
  if (violated) return EndVm();
  if (phase_ != Phase::kRunning) return;
  phase_ = Phase::kFrontEndLost;
  timer_.Arm(kFrontEndLostLimitMs);
}

void Supervisor::OnVmEnded(int status) {
  exit_code_ = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
  phase_ = Phase::kFlushing;
  timer_.Arm(kFlushLimitMs);
  clients_.Close();
  device_.EndAll();
  events_.VmExit(status);
}

void Supervisor::Unavailable(const char* what, const std::string& name, int error) {
  std::fprintf(stderr, "caisson-pod: %s %s: %s\n", what, name.c_str(), std::strerror(-error));
}

void Supervisor::Leash::Start() {
  // Fails for files and /dev/null, which cannot be let go: then only signals end the VM.
  watch_.Start(STDIN_FILENO, EPOLLIN | EPOLLRDHUP, *this);
}

void Supervisor::Leash::OnReady(uint32_t) {
  char ignored[256];
  if (read(STDIN_FILENO, ignored, sizeof ignored) > 0) return;
  watch_.Stop();
  supervisor_.EndVm();
}

}  // namespace caisson::pod
