// One entry of a layer, with everything that decides what a container sees of it. Contents stay in the stored tar: an
// entry says where.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson {

// The unit of a tar, and the block of the index over it.
constexpr uint64_t kEntryBlock = 512;

// The numbers stand in catalogues.
enum class EntryType : uint8_t {
  kFile = 0,
  kDirectory = 1,
  kSymlink = 2,
  kHardLink = 3,
  kCharacterDevice = 4,
  kBlockDevice = 5,
  kFifo = 6,
  kWhiteout = 7,  // removes `path` of lower layers
  kOpaque = 8,    // removes everything below `path` of lower layers
};

constexpr uint8_t kEntryTypes = 9;

// Part of a file's content, in blocks of 512 bytes; what no extent covers reads as zeros.
struct Extent {
  uint64_t at = 0;
  uint64_t blocks = 0;
  // Block of the stored tar; with kInAppendix, of what is stored behind the archive.
  uint64_t stored = 0;

  static constexpr uint64_t kInAppendix = uint64_t{1} << 63;
};

struct Xattr {
  std::string name;
  std::string value;
};

struct LayerEntry {
  EntryType type = EntryType::kFile;
  // Relative to the root, without empty, "." and ".." components; empty is the root.
  std::string path;
  // Symbolic link: verbatim. Hard link: a path as above.
  std::string link;
  uint16_t mode = 0;  // 07777
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime = 0;
  uint32_t mtime_ns = 0;
  uint32_t major = 0;
  uint32_t minor = 0;
  uint64_t size = 0;
  std::vector<Xattr> xattrs;
  std::vector<Extent> extents;
};

}  // namespace caisson
