// One stream of the guest's, and its other end on this machine: a FIFO of containerd's, or a client of a port.
#pragma once

#include <string>

#include "event_loop.h"
#include "unique_fd.h"

namespace caisson::shim {

struct StreamPlan {
  std::string vsock;   // socket of the VM's vsock device
  std::string ticket;  // opens the guest's stream
  std::string input;   // FIFO to read from; empty: none
  std::string output;  // FIFO or file to write to; empty: none
  pod::UniqueFd client{};  // in place of both: a connected socket
};

class StdioStream final {
 public:
  explicit StdioStream(pod::EventLoop& loop);
  // Returns 0 or -errno. The guest's part of the handshake comes later; a refusal ends the stream.
  int Open(StreamPlan plan);
  // containerd will write no more: what it has written still goes.
  void CloseInput() { held_writer_.Reset(); }
  // All output is written and the guest has closed its side (of a client: both sides), or the stream broke.
  bool ended() const { return ended_; }

 private:
  // One direction, with what has been read and not yet written.
  class Pump final : public pod::EventHandler {
   public:
    Pump(pod::EventLoop& loop, StdioStream& owner) : owner_(owner), reading_(loop), writing_(loop) {}
    bool Start(int from, int to);
    void Feed(std::string_view bytes);
    void OnReady(uint32_t events) override;
    bool done() const { return done_; }

   private:
    void Read();
    bool Write();
    void Turn();

    StdioStream& owner_;
    pod::Watch reading_;
    pod::Watch writing_;
    int from_ = -1;
    int to_ = -1;
    std::string pending_;
    bool at_end_ = false;
    bool reading_now_ = false;
    bool writing_now_ = false;
    bool done_ = false;
  };

  // Reads the two lines that come before the guest's bytes.
  class Handshake final : public pod::EventHandler {
   public:
    Handshake(pod::EventLoop& loop, StdioStream& owner) : owner_(owner), watch_(loop) {}
    bool Start(int fd);
    void OnReady(uint32_t events) override;

   private:
    StdioStream& owner_;
    pod::Watch watch_;
    int fd_ = -1;
    std::string text_;
  };

  int OpenFifos(const StreamPlan& plan);
  void OnAccepted(std::string_view first_bytes);
  void OnPumpDone();
  void End();

  pod::UniqueFd guest_;
  pod::UniqueFd guest_writer_;  // a second descriptor of the same stream: epoll knows each only once
  pod::UniqueFd input_;
  pod::UniqueFd held_writer_;
  pod::UniqueFd output_;
  bool has_client_ = false;
  Handshake handshake_;
  Pump to_host_;
  Pump to_guest_;
  bool ended_ = false;
};

}  // namespace caisson::shim
