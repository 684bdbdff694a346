// Processes that are not this one's children, files below a directory that others wrote, and the machine itself.
// Results are non-negative or -errno.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson {

// Orphans below this process become its children, so that it can learn how a container's first process ended.
int BecomeSubreaper() noexcept;

// A descriptor that becomes readable when the process has ended; owned by the caller.
int OpenProcess(int pid) noexcept;

// Takes the exit status of a child: 0..255, or 128 + signal; -EAGAIN while it runs, -ECHILD when it is not a child.
int TakeExit(int pidfd) noexcept;
int SignalProcess(int pidfd, int signal) noexcept;

// Content of a regular file below `root`, symbolic links resolved inside it (RESOLVE_IN_ROOT). -EFBIG above `max_bytes`,
// -EINVAL for anything but a regular file. May block: call it from a worker thread.
int ReadInRoot(const std::string& root, const std::string& path, size_t max_bytes, std::vector<uint8_t>& content);

int SetHostname(const std::string& name) noexcept;
int SetWallClock(int64_t milliseconds) noexcept;
// Writes what is dirty first. Returns only on failure.
int PowerOff() noexcept;

}  // namespace caisson
