// One connection of containerd, carried to the daemon. What the daemon has not answered when it goes is asked again of the
// one that comes after it; containerd notices nothing but the time.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "channel.h"
#include "event_loop.h"
#include "frames.h"
#include "unique_fd.h"

namespace caisson::shim {

class Link final : public Channel::Owner {
 public:
  // `hello` opens a connection to the daemon; `number` is this link's among those of the pod.
  Link(pod::EventLoop& loop, uint64_t number, std::string hello);
  bool Open(pod::UniqueFd client) { return client_.Open(std::move(client)); }

  // Whether the daemon is missing although it is needed.
  bool wants_daemon() const { return client_.is_open() && !daemon_.is_open(); }
  bool ended() const { return !client_.is_open(); }
  // Nothing is on its way to containerd.
  bool idle() const { return unanswered_.empty() && client_.queued() == 0; }
  void ConnectDaemon(pod::UniqueFd fd);

  void OnBytes(Channel& channel, std::string_view bytes) override;
  void OnEnd(Channel& channel) override;

 private:
  void TakeFromClient();
  void TakeFromDaemon();

  Channel client_;
  Channel daemon_;
  FrameCutter from_client_;
  FrameCutter from_daemon_;
  const uint64_t number_;
  const std::string hello_;
  std::map<uint32_t, std::string> unanswered_;
  size_t unanswered_bytes_ = 0;
};

}  // namespace caisson::shim
