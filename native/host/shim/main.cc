// containerd-shim-caisson-v2: what containerd starts for every pod. `start` asks the node's daemon where the pod's socket
// shall be, leaves the relay behind that owns it, and prints the address; `delete` cleans up after a pod that was lost.

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "bootstrap.h"
#include "command.h"
#include "node_client.h"
#include "relay.h"
#include "settings.h"
#include "unix_socket.h"

namespace caisson::shim {
namespace {

constexpr int kUnavailable = 3;
constexpr int kStartPatienceMs = 60'000;
// containerd gives `delete` five seconds.
constexpr int kDeletePatienceMs = 3500;
constexpr size_t kMaxInputBytes = 10 * 1024 * 1024;
constexpr int kListener = 3;
constexpr int kKilled = 128 + SIGKILL;

int Fail(const std::string& text) {
  std::fprintf(stderr, "containerd-shim-caisson-v2: %s\n", text.c_str());
  return kUnavailable;
}

std::string WorkingDirectory() {
  char path[4096];
  return getcwd(path, sizeof path) == nullptr ? "" : path;
}

std::string Environment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

std::string ReadInput() {
  std::string input;
  char chunk[16 * 1024];
  if (isatty(STDIN_FILENO) == 1) return input;
  for (ssize_t count; (count = read(STDIN_FILENO, chunk, sizeof chunk)) > 0 && input.size() < kMaxInputBytes;) {
    input.append(chunk, static_cast<size_t>(count));
  }
  return input;
}

bool WriteFile(const char* path, const std::string& text) {
  const pod::UniqueFd fd(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  return fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

void MakeParents(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    mkdir(path.substr(0, slash).c_str(), 0700);
  }
}

// The kernel rather ends a relay than containerd, and a workload rather than either.
void AdjustOomScore() {
  std::FILE* file = std::fopen("/proc/self/oom_score_adj", "r+e");
  if (file == nullptr) return;
  int score = 0;
  if (std::fscanf(file, "%d", &score) == 1 && score < 1000) {
    std::rewind(file);
    std::fprintf(file, "%d", score + 1);
  }
  std::fclose(file);
}

// Leaves a process of its own session behind that listens on `listener`. Returns false with errno set.
bool LeaveRelay(const Command& command, int listener, const std::string& socket) {
  const pid_t child = fork();
  if (child != 0) return child > 0;
  setsid();
  AdjustOomScore();
  // containerd waits for the end of our output: nobody may hold it.
  const int null_fd = open("/dev/null", O_RDWR);
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null_fd, standard);
  if (listener != kListener) dup2(listener, kListener);
  fcntl(kListener, F_SETFD, 0);
  close_range(kListener + 1, ~0U, 0);
  if (chdir("/") != 0) _exit(127);
  execl("/proc/self/exe", "containerd-shim-caisson-v2", "-namespace", command.ns.c_str(), "-id", command.id.c_str(), "-socket",
        socket.c_str(), "serve", nullptr);
  _exit(127);
}

int Start(const Command& command, const Settings& settings) {
  const Dialect dialect =
      ChooseDialect(ReadInput(), command.id, command.ns, !Environment("GRPC_ADDRESS").empty());
  const pod::UniqueFd node = ConnectNode(settings, kStartPatienceMs);
  if (!node) return Fail("the node's daemon does not answer on " + settings.socket + ": see " + settings.log);
  const std::string question = EncodeBlock("start", {{"id", command.id},
                                                     {"namespace", command.ns},
                                                     {"bundle", WorkingDirectory()},
                                                     {"address", command.address},
                                                     {"ttrpc", Environment("TTRPC_ADDRESS")}});
  std::string answer;
  if (question.empty() || !Ask(node.get(), question, kStartPatienceMs, answer)) {
    return Fail("the node's daemon gave no answer on " + settings.socket);
  }
  const size_t space = answer.find(' ');
  const std::string role = answer.substr(0, space), rest = space == std::string::npos ? "" : answer.substr(space + 1);
  if (role != "relay" && role != "pod") return Fail(role == "error" ? rest : "the node's daemon answered: " + answer);
  // Both outlive this function by intent: leaving without destructors keeps the socket's file for the relay.
  static pod::UnixListener listener;
  if (role == "relay") {
    MakeParents(rest);
    if (const int error = listener.Listen(rest, 64); error != 0) {
      return Fail("cannot listen on " + rest + ": " + std::strerror(-error));
    }
    if (!LeaveRelay(command, listener.fd(), rest)) return Fail(std::string("cannot fork: ") + std::strerror(errno));
  }
  const std::string text = Bootstrap(dialect, rest);
  const bool kept = WriteFile("address", "unix://" + rest);
  if (!kept || write(STDOUT_FILENO, text.data(), text.size()) < 0) {
    std::fprintf(stderr, "containerd-shim-caisson-v2: cannot write the address: %s\n", std::strerror(errno));
    _exit(kUnavailable);
  }
  _exit(0);
}

struct Ending {
  uint64_t pid = 0;
  uint64_t status = kKilled;
  uint64_t seconds = 0;
  uint64_t nanoseconds = 0;
};

bool ParseEnding(std::string_view text, Ending& ending) {
  if (!text.starts_with("deleted")) return false;
  text.remove_prefix(7);
  for (uint64_t* field : {&ending.pid, &ending.status, &ending.seconds, &ending.nanoseconds}) {
    if (!text.starts_with(' ')) return false;
    text.remove_prefix(1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *field);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
  }
  return text.empty();
}

void AppendField(std::string& message, uint8_t number, uint64_t value) {
  if (value == 0) return;
  message += static_cast<char>(number << 3);
  AppendVarint(message, value);
}

// containerd.task.v2.DeleteResponse
std::string EncodeEnding(const Ending& ending) {
  std::string time, message;
  AppendField(time, 1, ending.seconds);
  AppendField(time, 2, ending.nanoseconds);
  AppendField(message, 1, ending.pid);
  AppendField(message, 2, ending.status);
  message += static_cast<char>(3 << 3 | 2);
  AppendVarint(message, time.size());
  return message + time;
}

int Delete(const Command& command, const Settings& settings) {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  Ending ending{.seconds = static_cast<uint64_t>(now.tv_sec), .nanoseconds = static_cast<uint64_t>(now.tv_nsec)};
  const pod::UniqueFd node = ConnectNode(settings, kDeletePatienceMs / 2);
  std::string answer;
  const std::string question = EncodeBlock("delete", {{"id", command.id}, {"namespace", command.ns}, {"bundle", command.bundle}});
  // Whatever is left is the daemon's to remove when it is back; the task is gone either way.
  if (node && Ask(node.get(), question, kDeletePatienceMs, answer)) {
    Ending told;
    if (ParseEnding(answer, told)) ending = told;
  }
  const std::string message = EncodeEnding(ending);
  return write(STDOUT_FILENO, message.data(), message.size()) == static_cast<ssize_t>(message.size()) ? 0 : kUnavailable;
}

int Serve(const Command& command, const Settings& settings) {
  const rlimit no_core{1, 1};
  setrlimit(RLIMIT_CORE, &no_core);
  fcntl(kListener, F_SETFD, FD_CLOEXEC);
  fcntl(kListener, F_SETFL, O_NONBLOCK);
  return Relay(command, settings, pod::UniqueFd(kListener)).Run();
}

int Main(int argc, char** argv) {
  Command command;
  if (const std::string problem = ParseCommand(argc, argv, command); !problem.empty()) {
    std::fprintf(stderr, "containerd-shim-caisson-v2: %s\n", problem.c_str());
    return 2;
  }
  if (command.verb == Command::Verb::kVersion) {
    std::puts("containerd-shim-caisson-v2 0.1.0");
    return 0;
  }
  // Runtime features are none that a caller could use: containerd goes on without them.
  if (command.verb == Command::Verb::kInfo) return 1;
  if (command.id.empty() || command.ns.empty()) {
    std::fputs("containerd-shim-caisson-v2: -id and -namespace are needed; containerd gives them\n", stderr);
    return 2;
  }
  umask(0077);
  Settings settings;
  if (const std::string problem = LoadSettings(settings); !problem.empty()) return Fail(problem);
  switch (command.verb) {
    case Command::Verb::kStart:
      return Start(command, settings);
    case Command::Verb::kDelete:
      return Delete(command, settings);
    default:
      return Serve(command, settings);
  }
}

}  // namespace
}  // namespace caisson::shim

int main(int argc, char** argv) { return caisson::shim::Main(argc, argv); }
