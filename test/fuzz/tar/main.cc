// The reader of a layer's tar: how its blocks arrive decides nothing, and every entry keeps what its type promises.
#include "tar.h"

#include <algorithm>
#include <cstring>

#include "../require.h"
#include "mutator.h"

namespace {

using caisson::EntryType;
using caisson::Extent;
using caisson::kTarBlock;
using caisson::LayerEntry;
using caisson::TarReader;

struct Reading {
  bool accepted = false;
  std::string problem;
  std::string entry;
  uint64_t stored = 0;
  uint64_t appended = 0;
  std::vector<LayerEntry> entries;
};

Reading Read(const std::vector<uint8_t>& tar, size_t portion) {
  Reading reading;
  TarReader reader({[&](const LayerEntry& entry) {
                      reading.entries.push_back(entry);
                      return true;
                    },
                    [&](const uint8_t*) {
                      reading.appended++;
                      return true;
                    }});
  const size_t whole = tar.size() / kTarBlock;
  for (size_t at = 0; at < whole; at += portion) {
    const size_t count = std::min(portion, whole - at);
    const std::vector<uint8_t> blocks(tar.begin() + static_cast<ptrdiff_t>(at * kTarBlock),
                                      tar.begin() + static_cast<ptrdiff_t>((at + count) * kTarBlock));
    const size_t belonging = reader.Blocks(blocks.data(), count);
    REQUIRE(belonging <= count);
    reading.stored += belonging;
    if (reader.failed()) break;
  }
  reader.Finish(tar.size() % kTarBlock);
  REQUIRE(!reader.sink_failed() && reader.appended() == reading.appended);
  reading.accepted = !reader.failed();
  reading.problem = reader.problem();
  reading.entry = reader.problem_entry();
  return reading;
}

bool Same(const LayerEntry& a, const LayerEntry& b) {
  const auto extents = [](const Extent& x, const Extent& y) {
    return x.at == y.at && x.blocks == y.blocks && x.stored == y.stored;
  };
  const auto xattrs = [](const caisson::Xattr& x, const caisson::Xattr& y) { return x.name == y.name && x.value == y.value; };
  return a.type == b.type && a.path == b.path && a.link == b.link && a.mode == b.mode && a.uid == b.uid && a.gid == b.gid &&
         a.mtime == b.mtime && a.mtime_ns == b.mtime_ns && a.major == b.major && a.minor == b.minor && a.size == b.size &&
         std::equal(a.xattrs.begin(), a.xattrs.end(), b.xattrs.begin(), b.xattrs.end(), xattrs) &&
         std::equal(a.extents.begin(), a.extents.end(), b.extents.begin(), b.extents.end(), extents);
}

void Check(const LayerEntry& entry, const Reading& reading) {
  REQUIRE(entry.mode <= 07777 && entry.mtime_ns < 1'000'000'000 && entry.major < 4096 && entry.minor < 1 << 20);
  REQUIRE(entry.path.find('\0') == std::string::npos && entry.path.size() <= 4096);
  REQUIRE(entry.path.empty() || (entry.path.front() != '/' && entry.path.back() != '/'));
  REQUIRE(("/" + entry.path + "/").find("/../") == std::string::npos);
  REQUIRE(entry.type == EntryType::kFile || entry.extents.empty());
  uint64_t next = 0;
  for (const Extent& extent : entry.extents) {
    const bool appendix = (extent.stored & Extent::kInAppendix) != 0;
    const uint64_t stored = extent.stored & ~Extent::kInAppendix;
    REQUIRE(extent.at >= next && extent.blocks > 0);
    next = extent.at + extent.blocks;
    REQUIRE(stored + extent.blocks <= (appendix ? reading.appended : reading.stored));
  }
  REQUIRE(next <= (entry.size + kTarBlock - 1) / kTarBlock);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<uint8_t> tar(data, data + size);
  const Reading reading = Read(tar, 1);
  const Reading other = Read(tar, 1 + size % 7);
  REQUIRE(reading.accepted == other.accepted && reading.problem == other.problem && reading.entry == other.entry);
  if (!reading.accepted) return 0;
  REQUIRE(reading.stored == other.stored && reading.appended == other.appended);
  REQUIRE(std::equal(reading.entries.begin(), reading.entries.end(), other.entries.begin(), other.entries.end(), Same));
  for (const LayerEntry& entry : reading.entries) Check(entry, reading);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return caisson::fuzz::MutateTar(data, size, max_size, seed);
}
