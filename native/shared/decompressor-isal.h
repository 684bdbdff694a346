// gzip by ISA-L, which inflates more than twice as fast as zlib. Debian has it as a shared library alone, so it is loaded
// when the machine has it; where it has not, or was built without its header, zlib does the work.
#pragma once

#include <memory>

#include "decompressor.h"

namespace caisson {

// Null when ISA-L is not there.
std::unique_ptr<Decompressor> MakeIsalDecompressor();

}  // namespace caisson
