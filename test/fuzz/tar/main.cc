// The scanner of a layer's tar. What it stores is an archive that it accepts in turn, with nothing left to add; and how the
// blocks arrive decides nothing.
#include "tar.h"

#include <algorithm>
#include <cstring>

#include "../require.h"
#include "mutator.h"

namespace {

using caisson::kTarBlock;
using caisson::TarScanner;

struct Scan {
  bool accepted = false;
  std::string problem;
  std::string entry;
  std::vector<uint8_t> stored;
};

Scan Read(const std::vector<uint8_t>& tar, size_t portion) {
  TarScanner scanner;
  Scan scan;
  const size_t whole = tar.size() / kTarBlock;
  for (size_t at = 0; at < whole; at += portion) {
    const size_t count = std::min(portion, whole - at);
    const std::vector<uint8_t> blocks(tar.begin() + static_cast<ptrdiff_t>(at * kTarBlock),
                                      tar.begin() + static_cast<ptrdiff_t>((at + count) * kTarBlock));
    const size_t belonging = scanner.Blocks(blocks.data(), count);
    REQUIRE(belonging <= count);
    scan.stored.insert(scan.stored.end(), blocks.begin(), blocks.begin() + static_cast<ptrdiff_t>(belonging * kTarBlock));
    if (scanner.failed()) break;
  }
  const std::vector<uint8_t> rest = scanner.Finish(tar.size() % kTarBlock);
  REQUIRE(rest.empty() == scanner.failed() && rest.size() % kTarBlock == 0);
  scan.stored.insert(scan.stored.end(), rest.begin(), rest.end());
  scan.accepted = !scanner.failed();
  scan.problem = scanner.problem();
  scan.entry = scanner.problem_entry();
  return scan;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<uint8_t> tar(data, data + size);
  const Scan scan = Read(tar, 1);
  const Scan other = Read(tar, 1 + size % 7);
  REQUIRE(scan.accepted == other.accepted && scan.problem == other.problem && scan.entry == other.entry);
  if (!scan.accepted) return 0;
  REQUIRE(scan.stored == other.stored);
  const Scan again = Read(scan.stored, 3);
  REQUIRE(again.accepted && again.stored == scan.stored);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return caisson::fuzz::MutateTar(data, size, max_size, seed);
}
