// The words that containerd starts a shim with.
#pragma once

#include <string>

namespace caisson::shim {

struct Command {
  enum class Verb { kNone, kStart, kDelete, kServe, kVersion, kInfo };
  Verb verb = Verb::kNone;
  std::string id;
  std::string ns;
  std::string address;  // containerd's gRPC socket
  std::string publish;  // containerd's own program
  std::string bundle;
  std::string socket;  // of `serve`: the path that descriptor 3 listens on
  bool debug = false;
};

// Flags as Go programs take them: `-id X`, `--id X`, `-id=X`. Returns an empty text, or what is wrong.
std::string ParseCommand(int argc, char** argv, Command& command);

}  // namespace caisson::shim
