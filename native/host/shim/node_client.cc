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
// For a daemon to listen, on a machine that is busy. Until then nobody starts another.
constexpr int kStartMs = 60'000;

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

void SleepMs(int duration_ms) { poll(nullptr, 0, duration_ms); }

// Runs in the grandchild.
[[noreturn]] void BecomeDaemon(const Settings& settings) {
  setsid();
  const int null_fd = open("/dev/null", O_RDONLY);
  const int log_fd = open(settings.log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  const int out_fd = log_fd < 0 ? open("/dev/null", O_WRONLY) : log_fd;
  dup2(null_fd, STDIN_FILENO);
  dup2(out_fd, STDOUT_FILENO);
  dup2(out_fd, STDERR_FILENO);
  // Whatever containerd left open in us is none of the daemon's business; its pipes would keep containerd waiting.
  close_range(3, ~0U, 0);
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
  // Held by the daemon's first moments only: a second daemon would find the first one's socket and end.
  for (size_t slash = settings.socket.find('/', 1); slash != std::string::npos; slash = settings.socket.find('/', slash + 1)) {
    mkdir(settings.socket.substr(0, slash).c_str(), 0700);
  }
  const pod::UniqueFd lock(open((settings.socket + ".start").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!lock || flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return;
  if (pod::ConnectUnix(settings.socket)) return;
  const pid_t child = fork();
  if (child == 0) {
    // Forked again: the daemon is nobody's child here, and leaves no zombie.
    if (fork() == 0) BecomeDaemon(settings);
    _exit(0);
  }
  if (child > 0) waitpid(child, nullptr, 0);
  const int64_t deadline = NowMs() + kStartMs;
  while (NowMs() < deadline && !pod::ConnectUnix(settings.socket)) SleepMs(kRetryMs);
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
