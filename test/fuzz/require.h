// A promise that a fuzzer checks: breaking one is a finding like any other crash.
#pragma once

#include <stdlib.h>

#define REQUIRE(condition) \
  do {                     \
    if (!(condition)) abort(); \
  } while (0)
