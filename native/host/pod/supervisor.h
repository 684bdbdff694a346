// The life of a pod's VM: starts it, ends it, and notices when it ends.
#pragma once

#include "child.h"
#include "event_loop.h"
#include "events.h"
#include "host_clients.h"
#include "options.h"
#include "vhost_user_server.h"
#include "vsock_device.h"

namespace caisson::pod {

class Supervisor final : public EventHandler {
 public:
  explicit Supervisor(const Options& options);

  // Returns this process's exit code.
  int Run();

  void OnReady(uint32_t events) override;  // a signal
  void OnTimer() override;

 private:
  // Standard input is the owner's leash: when it is let go, the VM ends.
  class Leash final : public EventHandler {
   public:
    explicit Leash(Supervisor& supervisor) : supervisor_(supervisor), watch_(supervisor.loop_) {}
    void Start();
    void OnReady(uint32_t events) override;

   private:
    Supervisor& supervisor_;
    Watch watch_;
  };

  enum class Phase { kRunning, kFrontEndLost, kTerminating, kFlushing, kDone };

  bool Prepare();
  void EndVm();
  void OnFrontEndLost(bool violated);
  void OnVmEnded(int status);
  void Unavailable(const char* what, const std::string& name, int error);

  const Options& options_;
  EventLoop loop_;
  Events events_;
  VsockDevice device_;
  VhostUserServer server_;
  HostClients clients_;
  UniqueFd signals_;
  Watch signal_watch_;
  Timer timer_;
  Leash leash_;
  Child child_;
  Phase phase_ = Phase::kRunning;
  int exit_code_ = 0;
};

}  // namespace caisson::pod
