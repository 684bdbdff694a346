// Where the node's daemon listens and how it is started: `../etc/caisson/shim.conf` beside the program's folder, or
// /etc/caisson/shim.conf. One `name value` per line; `caisson node install` writes it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace caisson::shim {

struct Settings {
  std::string socket = "/run/caisson/node.sock";
  std::string log;                  // of a daemon that is started from here; empty: <socket>.log
  std::vector<std::string> daemon;  // one `daemon WORD` line per word; none: never started from here
};

// Returns an empty text, or what is wrong.
std::string ParseSettings(std::string_view text, Settings& settings);
// No file means the defaults.
std::string LoadSettings(Settings& settings);

}  // namespace caisson::shim
