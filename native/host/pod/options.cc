#include "options.h"

#include <sys/un.h>

#include <charconv>
#include <string_view>

namespace caisson::pod {

const char kUsage[] =
    "usage: caisson-pod --state-dir DIR [options] -- VMM [ARG]...\n"
    "\n"
    "Serves the vsock device of one VM and owns the VMM: its end is the VM's end, and the other way round. The VM also\n"
    "ends when standard input, a pipe or socket, is closed. Events are printed as JSON lines.\n"
    "\n"
    "  --state-dir DIR        where sockets and log lie\n"
    "  --cid N                the guest's CID, 3 to 4294967294 (default 3)\n"
    "  --vsock PATH           socket for host programs (default DIR/vsock.sock): \"CONNECT <port>\\n\" is answered by\n"
    "                         \"OK <host port>\\n\"; a guest program that dials CID 2 reaches PATH_<port>\n"
    "  --vhost PATH           socket for the VMM (default DIR/vhost.sock)\n"
    "  --log FILE             the VMM's standard output and error, appended (default DIR/vmm.log)\n"
    "  --connect-hold-ms N    how long a client may wait for the guest's driver (default 0: closed at once)\n"
    "  --grace-ms N           from SIGTERM to SIGKILL when the VM is ended (default 5000)\n"
    "\n"
    "Exit code: 0 the VMM ended with 0, 1 it ended otherwise, 2 wrong usage, 3 something is unavailable.\n";

namespace {

// Room for "_" and a port of ten digits behind the path in sockaddr_un.
constexpr size_t kMaxVsockPathBytes = sizeof(sockaddr_un::sun_path) - 1 - 11;
constexpr uint64_t kMaxMs = 24 * 3600 * 1000;

bool ParseNumber(std::string_view text, uint64_t minimum, uint64_t maximum, uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= minimum && value <= maximum;
}

}  // namespace

std::string ParseOptions(int argc, char** argv, Options& options) {
  int index = 1;
  for (; index < argc; index += 2) {
    const std::string name = argv[index];
    if (name == "--") break;
    if (index + 1 >= argc) return name + " needs a value";
    const std::string value = argv[index + 1];
    bool good = !value.empty();
    if (name == "--state-dir") {
      options.state_dir = value;
    } else if (name == "--vsock") {
      options.vsock_path = value;
    } else if (name == "--vhost") {
      options.vhost_path = value;
    } else if (name == "--log") {
      options.log_path = value;
    } else if (name == "--cid") {
      good = ParseNumber(value, 3, UINT32_MAX - 1, options.guest_cid);
    } else if (name == "--connect-hold-ms") {
      good = ParseNumber(value, 0, kMaxMs, options.connect_hold_ms);
    } else if (name == "--grace-ms") {
      good = ParseNumber(value, 0, kMaxMs, options.grace_ms);
    } else {
      return "unknown option " + name;
    }
    if (!good) return "bad value for " + name + ": \"" + value + "\"";
  }
  for (++index; index < argc; ++index) options.command.emplace_back(argv[index]);
  if (options.state_dir.empty()) return "--state-dir is missing";
  if (options.command.empty()) return "the VMM's command is missing after --";
  if (options.vsock_path.empty()) options.vsock_path = options.state_dir + "/vsock.sock";
  if (options.vhost_path.empty()) options.vhost_path = options.state_dir + "/vhost.sock";
  if (options.log_path.empty()) options.log_path = options.state_dir + "/vmm.log";
  if (options.vsock_path.size() > kMaxVsockPathBytes) {
    return "socket path longer than " + std::to_string(kMaxVsockPathBytes) + " bytes: " + options.vsock_path;
  }
  return "";
}

}  // namespace caisson::pod
