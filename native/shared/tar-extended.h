// What extended headers say about the next entry: pax records (POSIX.1-2017, pax, "pax Extended Header"), GNU long names,
// extended attributes as star and libarchive write them, and GNU's three generations of sparse maps.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "layer-entry.h"

namespace caisson {

// No file is larger, and sums of sizes stay far from overflow.
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 46;

struct TarTime {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
};

// A run of data in a sparse file, bytes.
struct SparseRun {
  uint64_t offset = 0;
  uint64_t length = 0;
};

struct Extensions {
  std::optional<std::string> path;
  std::optional<std::string> link;
  std::optional<uint64_t> size;
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
  std::optional<TarTime> mtime;
  std::vector<Xattr> xattrs;

  // pax sparse: `sparse_map` of versions 0.0 and 0.1, or a map in front of the data with version 1.0.
  bool sparse = false;
  bool sparse_map_in_data = false;
  std::optional<uint64_t> sparse_size;
  std::optional<std::string> sparse_path;
  std::vector<SparseRun> sparse_map;
  std::optional<uint64_t> sparse_offset;  // half a run of version 0.0

  bool any = false;  // there is an extended header, whatever it holds
};

// Reads the records of one header into `extensions`. Null, or what is wrong.
const char* ReadPaxRecords(std::string_view records, bool global, Extensions* extensions);

// Digits only, at most `max`.
bool ParseDecimal(std::string_view text, uint64_t max, uint64_t* value);

}  // namespace caisson
