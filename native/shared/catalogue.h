// The catalogue of a layer: its entries in the archive's order, in a file beside the stored tar. It is what the index of an
// image is made from, layer upon layer, so that no tar is read twice. Little-endian; records, then a footer:
//
//   record  u32 bytes behind this; u8 type; u8 0; u16 mode; u32 uid, gid; i64 mtime; u32 nanoseconds, major, minor;
//           u64 size; u16 path bytes, link bytes, attributes; u16 0; u32 extents; path; link;
//           per attribute u16 name bytes, u32 value bytes, name, value; per extent u64 at, blocks, stored
//   footer  "caislayr"; u64 records, blocks of the stored tar, first block behind the archive; u64 1 if there are whiteouts
//
// The reader takes what it reads for hostile, as the reader of a tar does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "file.h"
#include "layer-entry.h"

namespace caisson {

constexpr uint64_t kMaxCatalogueBytes = uint64_t{1} << 30;

class CatalogueWriter {
 public:
  // Each returns 0 or errno; EFBIG when the catalogue would exceed kMaxCatalogueBytes.
  int Create(const std::string& path);
  int Add(const LayerEntry& entry);
  int Finish(uint64_t stored_blocks, uint64_t appendix);
  void Close() { file_.Close(); }

 private:
  int Flush();

  File file_;
  std::vector<uint8_t> buffer_;
  uint64_t written_ = 0;
  uint64_t records_ = 0;
  bool has_whiteouts_ = false;
};

// Strings of an entry that is read where it lies.
struct EntryView {
  EntryType type = EntryType::kFile;
  uint16_t mode = 0;
  uint32_t uid = 0, gid = 0;
  int64_t mtime = 0;
  uint32_t mtime_ns = 0, major = 0, minor = 0;
  uint64_t size = 0;
  std::string_view path, link;
  uint16_t xattr_count = 0;
  uint32_t extent_count = 0;
  // As they stand in the record.
  const uint8_t* xattrs = nullptr;
  const uint8_t* extents = nullptr;
};

struct XattrView {
  std::string_view name, value;
};

// Moves `at` behind the attribute; only for what `CatalogueReader` has checked.
XattrView NextXattr(const uint8_t** at);
Extent ExtentAt(const uint8_t* extents, uint32_t index);

class CatalogueReader {
 public:
  // The bytes stay where they are. False when they are no catalogue.
  bool Open(const uint8_t* bytes, size_t length);

  // The next entry. False at the end or when it is malformed: then `failed()`.
  bool Next(EntryView* entry);
  void Rewind();

  bool failed() const { return failed_; }
  uint64_t stored_blocks() const { return stored_blocks_; }
  bool has_whiteouts() const { return has_whiteouts_; }

 private:
  bool Malformed();
  bool CheckXattrs(const uint8_t** at, const uint8_t* end, uint16_t count) const;
  bool CheckExtents(const EntryView& entry) const;

  const uint8_t* begin_ = nullptr;
  const uint8_t* end_ = nullptr;
  const uint8_t* at_ = nullptr;
  uint64_t records_ = 0;
  uint64_t seen_ = 0;
  uint64_t stored_blocks_ = 0;
  uint64_t appendix_ = 0;
  bool has_whiteouts_ = false;
  bool failed_ = false;

 public:
  // Of an extent's `stored`: the block of the stored tar.
  uint64_t StoredBlock(uint64_t stored) const {
    return (stored & Extent::kInAppendix) != 0 ? appendix_ + (stored & ~Extent::kInAppendix) : stored;
  }
};

}  // namespace caisson
