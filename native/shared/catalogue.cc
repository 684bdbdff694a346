#include "catalogue.h"

#include <cerrno>
#include <cstring>
#include <type_traits>

namespace caisson {

namespace {

constexpr size_t kFlush = 64 * 1024;
constexpr size_t kFixed = 56;
constexpr size_t kFooter = 40;
constexpr char kMagic[] = "caislayr";
constexpr uint64_t kMaxBlocks = uint64_t{1} << 32;
constexpr uint64_t kMaxFileBlocks = uint64_t{1} << 38;

// Callers run on x86-64, whose byte order is the file's.
template <typename Number>
void Put(std::vector<uint8_t>* out, Number number) {
  static_assert(std::is_integral_v<Number>);
  const auto* bytes = reinterpret_cast<const uint8_t*>(&number);
  out->insert(out->end(), bytes, bytes + sizeof number);
}

void PutText(std::vector<uint8_t>* out, std::string_view text) { out->insert(out->end(), text.begin(), text.end()); }

template <typename Number>
Number Get(const uint8_t* at) {
  Number number;
  std::memcpy(&number, at, sizeof number);
  return number;
}

std::string_view View(const uint8_t* at, size_t length) { return {reinterpret_cast<const char*>(at), length}; }

}  // namespace

int CatalogueWriter::Create(const std::string& path) { return file_.Create(path); }

int CatalogueWriter::Add(const LayerEntry& entry) {
  size_t length = kFixed - 4 + entry.path.size() + entry.link.size() + 24 * entry.extents.size();
  for (const Xattr& xattr : entry.xattrs) length += 6 + xattr.name.size() + xattr.value.size();
  if (written_ + buffer_.size() + length > kMaxCatalogueBytes) return EFBIG;
  auto* out = &buffer_;
  Put(out, static_cast<uint32_t>(length));
  Put(out, static_cast<uint8_t>(entry.type));
  Put(out, uint8_t{0});
  Put(out, entry.mode);
  Put(out, entry.uid);
  Put(out, entry.gid);
  Put(out, entry.mtime);
  Put(out, entry.mtime_ns);
  Put(out, entry.major);
  Put(out, entry.minor);
  Put(out, entry.size);
  Put(out, static_cast<uint16_t>(entry.path.size()));
  Put(out, static_cast<uint16_t>(entry.link.size()));
  Put(out, static_cast<uint16_t>(entry.xattrs.size()));
  Put(out, uint16_t{0});
  Put(out, static_cast<uint32_t>(entry.extents.size()));
  PutText(out, entry.path);
  PutText(out, entry.link);
  for (const Xattr& xattr : entry.xattrs) {
    Put(out, static_cast<uint16_t>(xattr.name.size()));
    Put(out, static_cast<uint32_t>(xattr.value.size()));
    PutText(out, xattr.name);
    PutText(out, xattr.value);
  }
  for (const Extent& extent : entry.extents) {
    Put(out, extent.at);
    Put(out, extent.blocks);
    Put(out, extent.stored);
  }
  records_++;
  has_whiteouts_ = has_whiteouts_ || entry.type == EntryType::kWhiteout || entry.type == EntryType::kOpaque;
  return buffer_.size() < kFlush ? 0 : Flush();
}

int CatalogueWriter::Flush() {
  const int error = file_.WriteAt(buffer_.data(), buffer_.size(), written_);
  written_ += buffer_.size();
  buffer_.clear();
  return error;
}

int CatalogueWriter::Finish(uint64_t stored_blocks, uint64_t appendix) {
  PutText(&buffer_, kMagic);
  Put(&buffer_, records_);
  Put(&buffer_, stored_blocks);
  Put(&buffer_, appendix);
  Put(&buffer_, uint64_t{has_whiteouts_});
  return Flush();
}

XattrView NextXattr(const uint8_t** at) {
  const size_t name = Get<uint16_t>(*at);
  const size_t value = Get<uint32_t>(*at + 2);
  const XattrView view{View(*at + 6, name), View(*at + 6 + name, value)};
  *at += 6 + name + value;
  return view;
}

Extent ExtentAt(const uint8_t* extents, uint32_t index) {
  const uint8_t* at = extents + size_t{24} * index;
  return {Get<uint64_t>(at), Get<uint64_t>(at + 8), Get<uint64_t>(at + 16)};
}

bool CatalogueReader::Open(const uint8_t* bytes, size_t length) {
  if (length < kFooter || length > kMaxCatalogueBytes + kFooter) return false;
  begin_ = bytes;
  end_ = bytes + length - kFooter;
  if (std::memcmp(end_, kMagic, 8) != 0) return false;
  records_ = Get<uint64_t>(end_ + 8);
  stored_blocks_ = Get<uint64_t>(end_ + 16);
  appendix_ = Get<uint64_t>(end_ + 24);
  const uint64_t whiteouts = Get<uint64_t>(end_ + 32);
  has_whiteouts_ = whiteouts == 1;
  Rewind();
  return whiteouts <= 1 && stored_blocks_ < kMaxBlocks && appendix_ <= stored_blocks_;
}

void CatalogueReader::Rewind() {
  at_ = begin_;
  seen_ = 0;
}

bool CatalogueReader::Malformed() {
  failed_ = true;
  return false;
}

bool CatalogueReader::Next(EntryView* entry) {
  if (failed_) return false;
  if (at_ == end_) return seen_ == records_ ? false : Malformed();
  if (static_cast<size_t>(end_ - at_) < kFixed) return Malformed();
  const size_t length = Get<uint32_t>(at_);
  if (length < kFixed - 4 || length > static_cast<size_t>(end_ - at_ - 4)) return Malformed();
  const uint8_t* record = at_;
  const uint8_t* end = at_ + 4 + length;
  if (record[4] >= kEntryTypes) return Malformed();
  entry->type = static_cast<EntryType>(record[4]);
  entry->mode = Get<uint16_t>(record + 6);
  entry->uid = Get<uint32_t>(record + 8);
  entry->gid = Get<uint32_t>(record + 12);
  entry->mtime = Get<int64_t>(record + 16);
  entry->mtime_ns = Get<uint32_t>(record + 24);
  entry->major = Get<uint32_t>(record + 28);
  entry->minor = Get<uint32_t>(record + 32);
  entry->size = Get<uint64_t>(record + 36);
  const size_t path = Get<uint16_t>(record + 44);
  const size_t link = Get<uint16_t>(record + 46);
  entry->xattr_count = Get<uint16_t>(record + 48);
  entry->extent_count = Get<uint32_t>(record + 52);
  const uint8_t* at = record + kFixed;
  if (path + link > static_cast<size_t>(end - at)) return Malformed();
  entry->path = View(at, path);
  entry->link = View(at + path, link);
  at += path + link;
  entry->xattrs = at;
  if (!CheckXattrs(&at, end, entry->xattr_count)) return Malformed();
  entry->extents = at;
  if (static_cast<uint64_t>(end - at) != uint64_t{24} * entry->extent_count || !CheckExtents(*entry)) return Malformed();
  if (entry->mode > 07777 || entry->mtime_ns > 999'999'999 || entry->major > 4095 || entry->minor > 1048575) {
    return Malformed();
  }
  at_ = end;
  seen_++;
  return true;
}

bool CatalogueReader::CheckXattrs(const uint8_t** at, const uint8_t* end, uint16_t count) const {
  size_t total = 0;
  for (uint16_t i = 0; i < count; i++) {
    if (end - *at < 6) return false;
    const size_t name = Get<uint16_t>(*at);
    const size_t value = Get<uint32_t>(*at + 2);
    if (name == 0 || name > 255 || value > 65535 || 6 + name + value > static_cast<size_t>(end - *at)) return false;
    total += name + value;
    *at += 6 + name + value;
  }
  return total <= 65536;
}

// In order, without overlap, within the file and the stored tar.
bool CatalogueReader::CheckExtents(const EntryView& entry) const {
  if (entry.size > kMaxFileBlocks * kEntryBlock || (entry.type != EntryType::kFile && entry.extent_count > 0)) return false;
  const uint64_t blocks = (entry.size + kEntryBlock - 1) / kEntryBlock;
  uint64_t next = 0;
  for (uint32_t i = 0; i < entry.extent_count; i++) {
    const Extent extent = ExtentAt(entry.extents, i);
    const uint64_t stored = StoredBlock(extent.stored);
    if (extent.at < next || extent.blocks == 0 || extent.blocks > blocks || extent.at > blocks - extent.blocks) return false;
    if (stored > stored_blocks_ || extent.blocks > stored_blocks_ - stored) return false;
    next = extent.at + extent.blocks;
  }
  return true;
}

}  // namespace caisson
