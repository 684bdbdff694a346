// The process that stays with a pod: it owns the socket that containerd talks to, carries requests to the node's daemon
// and bytes between containerd's FIFOs and the guest, and holds the leash of the VM. It decides nothing.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "channel.h"
#include "command.h"
#include "event_loop.h"
#include "link.h"
#include "port_listener.h"
#include "settings.h"
#include "stdio_stream.h"
#include "unique_fd.h"

namespace caisson::shim {

// Lines between daemon and relay, after the relay's block `pod`. Words are separated by tabs.
//
//   daemon: open TOKEN VSOCK TICKET INPUT OUTPUT   ("-" for none)  relay: opened TOKEN | failed TOKEN TEXT
//           close-input TOKEN
//           drop TOKEN
//           hold PATH                                             relay: held PATH | failed PATH TEXT
//           listen TOKEN NETWORK PORT                             relay: opened TOKEN | failed TOKEN TEXT
//           join TOKEN VSOCK TICKET CLIENT                        relay: opened TOKEN | failed TOKEN TEXT
//           refuse CLIENT
//           close-ports
//           end
//   relay, unasked: stream TOKEN (lives, said after the block), ready (all said), ended TOKEN,
//                   client CLIENT PORT (waits for join or refuse; said again to the next daemon)
class Relay final : public pod::EventHandler, public Channel::Owner, public PortListener::Owner {
 public:
  Relay(const Command& command, const Settings& settings, pod::UniqueFd listener);
  // Returns this process's exit code.
  int Run();

  void OnReady(uint32_t events) override;  // containerd connects
  void OnTimer() override;                 // the daemon is looked for
  void OnBytes(Channel& channel, std::string_view bytes) override;
  void OnEnd(Channel& channel) override;
  void OnClient(uint16_t port, pod::UniqueFd client) override;

 private:
  void ConnectMissing();
  void Take(std::string_view line);
  void OpenStream(const std::vector<std::string>& words);
  void Listen(const std::vector<std::string>& words);
  void Join(const std::vector<std::string>& words);
  void Start(const std::string& token, StreamPlan plan);
  void Say(std::string_view line);
  void Sweep();

  const Command& command_;
  const Settings& settings_;
  pod::EventLoop loop_;
  pod::UniqueFd listener_;
  pod::Watch listening_;
  pod::Timer retry_;
  Channel control_;
  std::string control_text_;
  std::map<uint64_t, std::unique_ptr<Link>> links_;
  std::map<std::string, std::unique_ptr<StdioStream>> streams_;
  std::vector<pod::UniqueFd> held_;
  struct Client {
    uint16_t port;
    pod::UniqueFd fd;
  };
  std::map<uint16_t, std::unique_ptr<PortListener>> ports_;
  std::map<std::string, Client> clients_;  // that wait for a ticket
  uint64_t next_client_ = 1;
  uint64_t next_link_ = 1;
  int failures_ = 0;
  bool ending_ = false;
  bool expired_ = false;
};

}  // namespace caisson::shim
