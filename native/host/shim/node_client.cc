#include "node_client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "unix_socket.h"

namespace caisson::shim {
namespace {

constexpr size_t kMaxAnswerBytes = 4096;
constexpr int kRetryMs = 20;
// Between two starts, so that a daemon that ends at once does not keep the machine busy.
constexpr int kPauseSeconds = 5;
constexpr int kLock = 3;

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

void SleepMs(int duration_ms) { poll(nullptr, 0, duration_ms); }

// Whether a daemon was started a moment ago; if not, says that one is now. `lock` is empty before the first start, and
// its time is that of the last one.
bool JustStarted(int lock) {
  struct stat status {};
  if (fstat(lock, &status) != 0) return true;
  const time_t age = time(nullptr) - status.st_mtime;
  if (status.st_size > 0 && age >= 0 && age < kPauseSeconds) return true;
  return ftruncate(lock, 1) != 0 || futimens(lock, nullptr) != 0;
}

// Runs in the grandchild.
[[noreturn]] void BecomeDaemon(const Settings& settings, int lock) {
  setsid();
  const int null_fd = open("/dev/null", O_RDONLY);
  const int log_fd = open(settings.log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  const int out_fd = log_fd < 0 ? open("/dev/null", O_WRONLY) : log_fd;
  dup2(null_fd, STDIN_FILENO);
  dup2(out_fd, STDOUT_FILENO);
  dup2(out_fd, STDERR_FILENO);
  // The daemon holds the lock as long as it lives. Node gives no child a descriptor that it did not open itself.
  if (lock != kLock) dup2(lock, kLock);
  fcntl(kLock, F_SETFD, 0);
  // Whatever containerd left open in us is none of the daemon's business; its pipes would keep containerd waiting.
  close_range(kLock + 1, ~0U, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  if (chdir("/") != 0) _exit(127);
  std::vector<char*> arguments;
  for (const std::string& word : settings.daemon) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

}  // namespace

std::string EncodeBlock(std::string_view verb, const Block& block) {
  std::string text(verb);
  text += '\n';
  for (const auto& [name, value] : block) {
    if (value.empty()) continue;
    if (value.find('\n') != std::string::npos) return "";
    text += name + " " + value + "\n";
  }
  return text += '\n';
}

void StartDaemon(const Settings& settings) {
  if (settings.daemon.empty()) return;
  for (size_t slash = settings.socket.find('/', 1); slash != std::string::npos; slash = settings.socket.find('/', slash + 1)) {
    mkdir(settings.socket.substr(0, slash).c_str(), 0700);
  }
  const pod::UniqueFd lock(open((settings.socket + ".start").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!lock || flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return;
  if (pod::ConnectUnix(settings.socket) || JustStarted(lock.get())) return;
  const pid_t child = fork();
  if (child == 0) {
    // Forked again: the daemon is nobody's child here, and leaves no zombie.
    if (fork() == 0) BecomeDaemon(settings, lock.get());
    _exit(0);
  }
  if (child > 0) waitpid(child, nullptr, 0);
}

pod::UniqueFd ConnectNode(const Settings& settings, int patience_ms) {
  const int64_t deadline = NowMs() + patience_ms;
  while (true) {
    pod::UniqueFd fd = pod::ConnectUnix(settings.socket);
    if (fd) return fd;
    if (errno == ENOENT || errno == ECONNREFUSED) StartDaemon(settings);
    if (NowMs() >= deadline) return fd;
    SleepMs(kRetryMs);
  }
}

bool Ask(int fd, std::string_view block, int patience_ms, std::string& answer) {
  const int64_t deadline = NowMs() + patience_ms;
  while (!block.empty()) {
    const ssize_t count = send(fd, block.data(), block.size(), MSG_NOSIGNAL);
    if (count > 0) block.remove_prefix(static_cast<size_t>(count));
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (count < 0 && NowMs() >= deadline) return false;
    if (count < 0) SleepMs(1);
  }
  answer.clear();
  while (answer.find('\n') == std::string::npos) {
    const int64_t left = deadline - NowMs();
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    if (left <= 0 || answer.size() >= kMaxAnswerBytes) return false;
    if (poll(&waiting, 1, static_cast<int>(left)) <= 0) continue;
    char chunk[1024];
    const ssize_t count = read(fd, chunk, sizeof chunk);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (count > 0) answer.append(chunk, static_cast<size_t>(count));
  }
  answer.resize(answer.find('\n'));
  return true;
}

}  // namespace caisson::shim
