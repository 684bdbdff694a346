// The command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson::pod {

struct Options {
  std::string state_dir;
  std::string vsock_path;  // where host programs dial; guest programs reach `<vsock_path>_<port>`
  std::string vhost_path;  // where the VMM connects
  std::string log_path;    // the VMM's standard output and error
  uint64_t guest_cid = 3;
  uint64_t connect_hold_ms = 0;  // 0: a client that comes before the guest's driver is closed at once
  uint64_t grace_ms = 5000;      // between SIGTERM and SIGKILL
  std::vector<std::string> command;
};

extern const char kUsage[];

// Returns an empty text, or what is wrong with the arguments.
std::string ParseOptions(int argc, char** argv, Options& options);

}  // namespace caisson::pod
