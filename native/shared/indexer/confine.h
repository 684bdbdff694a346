// Gives up everything that a program which reads hostile bytes does not need.
#pragma once

#include <cstdint>

namespace caisson {

constexpr int kExitSetup = 125;

struct Limits {
  uint64_t seconds, memory_mib, file_mib;
};

// The last thing on standard error when a program itself fails, with what errno says; the exit status is kExitSetup.
[[noreturn]] void Fail(const char* what);

// From here on: nobody, without privileges, network, other files or new programs; the memory a process may allocate, the
// files it may write and its time are bounded, and when time runs out it ends with status 124.
void Confine(const Limits& limits);

}  // namespace caisson
