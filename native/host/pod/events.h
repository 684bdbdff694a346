// What the process reports: one JSON object per line on standard output.
//
//   {"event":"listening","vsock":PATH}            host clients may connect
//   {"event":"vm-started","pid":N}                the VMM runs
//   {"event":"guest-connected","resumed":BOOL}    the guest's vsock driver is up (or goes on after a pause)
//   {"event":"guest-reset"}                       the guest started anew; its streams are gone
//   {"event":"protocol-error","part":"front-end"|"ring","reason":TEXT}   the VMM or the guest broke a rule
//   {"event":"vm-exit","code":N} or {"event":"vm-exit","signal":N}       always the last line
#pragma once

#include <string_view>

namespace caisson::pod {

class Events {
 public:
  void Listening(std::string_view vsock_path);
  void VmStarted(int pid);
  void GuestConnected(bool resumed);
  void GuestReset();
  void ProtocolError(std::string_view part, std::string_view reason);
  // `status` as from waitpid(2).
  void VmExit(int status);

 private:
  void Write(std::string_view line);

  // A guest can break its rings again and again; the reader hears of the first ones only.
  int protocol_errors_left_ = 100;
};

}  // namespace caisson::pod
