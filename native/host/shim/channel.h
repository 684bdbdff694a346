// A connected stream socket with what is still to be written to it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "event_loop.h"
#include "unique_fd.h"

namespace caisson::shim {

class Channel final : public pod::EventHandler {
 public:
  class Owner {
   public:
    virtual void OnBytes(Channel& channel, std::string_view bytes) = 0;
    // The peer is gone. The owner may delete the channel.
    virtual void OnEnd(Channel& channel) = 0;

   protected:
    ~Owner() = default;
  };

  Channel(pod::EventLoop& loop, Owner& owner) : owner_(owner), watch_(loop) {}
  // Takes `fd`, a non-blocking stream, and lets go of the one before with what was not written to it.
  bool Open(pod::UniqueFd fd);
  void Close();
  void Send(std::string_view bytes);
  // While paused nothing is read, so that the peer has to wait.
  void Pause(bool paused);

  bool is_open() const { return static_cast<bool>(fd_); }
  size_t queued() const { return queue_.size(); }

  void OnReady(uint32_t events) override;

 private:
  void Flush();
  void Update();

  Owner& owner_;
  pod::Watch watch_;
  pod::UniqueFd fd_;
  std::string queue_;
  bool paused_ = false;
  uint32_t watched_ = 0;
};

}  // namespace caisson::shim
