// The way to the node's daemon.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "settings.h"
#include "unique_fd.h"

namespace caisson::shim {

// Words of one block: the first line is `verb`, then `name value` lines, then an empty line.
using Block = std::vector<std::pair<std::string, std::string>>;

// Empty when a value cannot be said in one line.
std::string EncodeBlock(std::string_view verb, const Block& block);

// Starts the daemon unless one lives that was started like this, or was started a moment ago. Does not wait for it.
void StartDaemon(const Settings& settings);

// Connects, starting the daemon when nobody answers. Nothing when `patience_ms` passed.
pod::UniqueFd ConnectNode(const Settings& settings, int patience_ms);

// Sends the block and waits for one line of at most 4096 bytes. False when none came in time.
bool Ask(int fd, std::string_view block, int patience_ms, std::string& answer);

}  // namespace caisson::shim
