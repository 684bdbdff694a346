#include "relay.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "node_client.h"
#include "unix_socket.h"

namespace caisson::shim {
namespace {

constexpr uint64_t kRetryMs = 50;
// A daemon that is restarted comes back within this time by itself; after it we start one.
constexpr int kFailuresBeforeStart = 20;
constexpr size_t kMaxLineBytes = 16 * 1024;
// For answers that are still on their way to containerd.
constexpr uint64_t kEndMs = 5000;
// Clients of ports that wait for a daemon; more are turned away.
constexpr size_t kMaxClients = 64;

std::vector<std::string> Words(std::string_view line) {
  std::vector<std::string> words;
  while (true) {
    const size_t tab = line.find('\t');
    words.emplace_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return words;
    line.remove_prefix(tab + 1);
  }
}

std::string PathOf(const std::string& word) { return word == "-" ? "" : word; }

}  // namespace

Relay::Relay(const Command& command, const Settings& settings, pod::UniqueFd listener)
    : command_(command),
      settings_(settings),
      listener_(std::move(listener)),
      listening_(loop_),
      retry_(loop_, *this),
      control_(loop_, *this) {}

int Relay::Run() {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  if (!listening_.Start(listener_.get(), EPOLLIN, *this)) return 3;
  ConnectMissing();
  while (true) {
    loop_.RunOnce(false);
    Sweep();
    if (!ending_) continue;
    bool idle = true;
    if (expired_) break;
    for (const auto& [number, link] : links_) idle = idle && (link->ended() || link->idle());
    if (idle) break;
  }
  unlink(command_.socket.c_str());
  return 0;
}

void Relay::OnReady(uint32_t) {
  pod::UniqueFd client(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!client) return;
  const uint64_t number = next_link_++;
  auto link = std::make_unique<Link>(loop_, number, EncodeBlock("task", {{"id", command_.id}, {"namespace", command_.ns}}));
  if (!link->Open(std::move(client))) return;
  links_.emplace(number, std::move(link));
  ConnectMissing();
}

void Relay::OnTimer() {
  if (ending_) {
    expired_ = true;
    return;
  }
  ConnectMissing();
}

// The daemon is needed by the control connection at all times, and by every link.
void Relay::ConnectMissing() {
  if (ending_) return;
  bool missing = false;
  if (!control_.is_open()) {
    pod::UniqueFd fd = pod::ConnectUnix(settings_.socket);
    if (fd && control_.Open(std::move(fd))) {
      control_text_.clear();
      control_.Send(EncodeBlock("pod", {{"id", command_.id}, {"namespace", command_.ns}, {"pid", std::to_string(getpid())}}));
      for (const auto& [token, stream] : streams_) Say("stream\t" + token);
      for (const auto& [name, client] : clients_) Say("client\t" + name + "\t" + std::to_string(client.port));
      Say("ready");
    } else {
      missing = true;
    }
  }
  for (const auto& [number, link] : links_) {
    if (missing || !link->wants_daemon()) continue;
    pod::UniqueFd fd = pod::ConnectUnix(settings_.socket);
    if (fd) link->ConnectDaemon(std::move(fd));
    missing = missing || link->wants_daemon();
  }
  if (!missing) {
    failures_ = 0;
    return;
  }
  if (++failures_ % kFailuresBeforeStart == 0) StartDaemon(settings_);
  retry_.Arm(kRetryMs);
}

void Relay::OnBytes(Channel&, std::string_view bytes) {
  control_text_.append(bytes);
  size_t newline;
  while ((newline = control_text_.find('\n')) != std::string::npos) {
    const std::string line = control_text_.substr(0, newline);
    control_text_.erase(0, newline + 1);
    Take(line);
  }
  if (control_text_.size() > kMaxLineBytes) OnEnd(control_);
}

void Relay::OnEnd(Channel& channel) {
  channel.Close();
  if (!ending_) retry_.Arm(kRetryMs);
}

void Relay::Take(std::string_view line) {
  const std::vector<std::string> words = Words(line);
  const std::string& verb = words[0];
  if (verb == "open" && words.size() == 6) return OpenStream(words);
  if (verb == "listen" && words.size() == 4) return Listen(words);
  if (verb == "join" && words.size() == 5) return Join(words);
  if (verb == "close-ports") {
    // What listens keeps the pod's network namespace alive.
    ports_.clear();
    clients_.clear();
    return;
  }
  if (verb == "end") {
    ending_ = true;
    retry_.Arm(kEndMs);
    return;
  }
  if (words.size() != 2) return;
  if (verb == "close-input") {
    if (const auto stream = streams_.find(words[1]); stream != streams_.end()) stream->second->CloseInput();
  } else if (verb == "drop") {
    streams_.erase(words[1]);
  } else if (verb == "refuse") {
    clients_.erase(words[1]);
  } else if (verb == "hold") {
    pod::UniqueFd fd(open(words[1].c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    Say(fd ? "held\t" + words[1] : "failed\t" + words[1] + "\t" + std::strerror(errno));
    if (fd) held_.push_back(std::move(fd));
  }
}

void Relay::OpenStream(const std::vector<std::string>& words) {
  Start(words[1], {.vsock = words[2], .ticket = words[3], .input = PathOf(words[4]), .output = PathOf(words[5])});
}

void Relay::Listen(const std::vector<std::string>& words) {
  const std::string& token = words[1];
  const auto port = static_cast<uint16_t>(std::strtoul(words[3].c_str(), nullptr, 10));
  if (!ports_.contains(port)) {
    auto listener = std::make_unique<PortListener>(loop_, *this, port);
    if (const int error = listener->Open(words[2]); error != 0) return Say("failed\t" + token + "\t" + std::strerror(-error));
    ports_.emplace(port, std::move(listener));
  }
  Say("opened\t" + token);
}

void Relay::OnClient(uint16_t port, pod::UniqueFd client) {
  if (clients_.size() >= kMaxClients) return;
  const std::string name = std::to_string(next_client_++);
  clients_.emplace(name, Client{port, std::move(client)});
  Say("client\t" + name + "\t" + std::to_string(port));
}

void Relay::Join(const std::vector<std::string>& words) {
  const auto client = clients_.find(words[4]);
  if (client == clients_.end()) return Say("failed\t" + words[1] + "\tthe client is gone");
  pod::UniqueFd fd = std::move(client->second.fd);
  clients_.erase(client);
  Start(words[1], {.vsock = words[2], .ticket = words[3], .input = "", .output = "", .client = std::move(fd)});
}

void Relay::Start(const std::string& token, StreamPlan plan) {
  auto stream = std::make_unique<StdioStream>(loop_);
  if (const int error = stream->Open(std::move(plan)); error != 0) {
    return Say("failed\t" + token + "\t" + std::strerror(-error));
  }
  streams_.insert_or_assign(token, std::move(stream));
  Say("opened\t" + token);
}

void Relay::Say(std::string_view line) { control_.Send(std::string(line) + "\n"); }

// What ended during the round; nothing of it is on the call stack here.
void Relay::Sweep() {
  bool daemon_missing = false;
  for (auto link = links_.begin(); link != links_.end();) {
    daemon_missing = daemon_missing || link->second->wants_daemon();
    link = link->second->ended() ? links_.erase(link) : std::next(link);
  }
  for (auto stream = streams_.begin(); stream != streams_.end();) {
    if (!stream->second->ended()) {
      ++stream;
      continue;
    }
    Say("ended\t" + stream->first);
    stream = streams_.erase(stream);
  }
  if (!daemon_missing || failures_ > 0 || ending_) return;
  failures_ = 1;
  retry_.Arm(kRetryMs);
}

}  // namespace caisson::shim
