#include "erofs.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace caisson {

namespace {

constexpr uint64_t kBlock = kEntryBlock;
constexpr unsigned kBlockBits = 9;
constexpr uint64_t kSuperAt = 1024, kSuper = 128, kDeviceSlot = 128;
constexpr uint64_t kSlot = 32;    // what an inode's number counts
constexpr uint64_t kInode = 64;   // the extended form, which has a time
constexpr uint64_t kDirent = 12;
constexpr uint64_t kChunkIndex = 8;
constexpr uint64_t kXattrHeader = 12;
constexpr uint32_t kMagic = 0xe0f5e1e2;
constexpr uint32_t kChunkedFile = 4, kDeviceTable = 8;  // incompatible features
constexpr uint16_t kPlain = 0, kInline = 2, kChunked = 4;  // data layouts
constexpr uint16_t kChunkIndexes = 0x20;
constexpr uint32_t kHole = 0xffffffff;
constexpr unsigned kMaxChunkBits = 31;
// 32 MiB of table for one file; what needs more is not sparse but splinters.
constexpr uint64_t kMaxChunks = 4 * 1024 * 1024;
constexpr uint64_t kMaxBlocks = 0xfffffff0;
constexpr size_t kBuffer = 256 * 1024;

uint64_t Up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

template <typename Number>
void Put(std::vector<uint8_t>* out, Number number) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&number);
  out->insert(out->end(), bytes, bytes + sizeof number);
}

void PutText(std::vector<uint8_t>* out, std::string_view text) { out->insert(out->end(), text.begin(), text.end()); }

struct Prefix {
  uint8_t number;
  std::string_view text;
};

// Names of attributes are written without these; others have no number.
constexpr Prefix kPrefixes[] = {{2, "system.posix_acl_access"}, {3, "system.posix_acl_default"}, {1, "user."},
                                {4, "trusted."},                {6, "security."}};

const Prefix* PrefixOf(std::string_view name) {
  for (const Prefix& prefix : kPrefixes) {
    if (prefix.number == 2 || prefix.number == 3 ? name == prefix.text : name.substr(0, prefix.text.size()) == prefix.text) {
      return &prefix;
    }
  }
  return nullptr;
}

// Of the inode's attributes with their header; 0 without any.
uint64_t XattrBytes(const Inode& inode) {
  if (inode.xattr_count == 0) return 0;
  uint64_t bytes = kXattrHeader;
  const uint8_t* at = inode.xattrs;
  for (uint16_t i = 0; i < inode.xattr_count; i++) {
    const XattrView xattr = NextXattr(&at);
    const Prefix* prefix = PrefixOf(xattr.name);
    bytes += Up(4 + xattr.name.size() - (prefix == nullptr ? 0 : prefix->text.size()) + xattr.value.size(), 4);
  }
  return bytes;
}

uint16_t ModeOf(const Inode& inode) {
  constexpr uint16_t kTypes[] = {0100000, 0040000, 0120000, 0100000, 0020000, 0060000, 0010000, 0, 0};
  return static_cast<uint16_t>(kTypes[static_cast<size_t>(inode.type)] | inode.mode);
}

uint8_t FileType(const Inode& inode) {
  constexpr uint8_t kTypes[] = {1, 2, 7, 1, 3, 4, 5, 0, 0};
  return kTypes[static_cast<size_t>(inode.type)];
}

// The kernel's new_encode_dev.
uint32_t DeviceNumber(const Inode& inode) {
  return (inode.minor & 0xff) | inode.major << 8 | (inode.minor & ~0xffu) << 12;
}

bool HasNumber(const Inode& inode) {
  return inode.type == EntryType::kCharacterDevice || inode.type == EntryType::kBlockDevice;
}

uint64_t BlocksOf(uint64_t bytes) { return (bytes + kBlock - 1) / kBlock; }

// The largest chunks that every run of content fits: runs begin and, but for the last, end with one.
unsigned ChunkBits(const Inode& inode) {
  const uint64_t blocks = BlocksOf(inode.size);
  uint64_t edges = 0;
  for (uint32_t i = 0; i < inode.extent_count; i++) {
    const Extent extent = ExtentAt(inode.extents, i);
    edges |= extent.at;
    if (extent.at + extent.blocks < blocks) edges |= extent.at + extent.blocks;
  }
  const unsigned whole = blocks <= 1 ? 0 : static_cast<unsigned>(std::bit_width(blocks - 1));
  const unsigned aligned = edges == 0 ? whole : static_cast<unsigned>(std::countr_zero(edges));
  return std::min({whole, aligned, kMaxChunkBits});
}

uint64_t ChunkCount(const Inode& inode, unsigned bits) { return (BlocksOf(inode.size) + (uint64_t{1} << bits) - 1) >> bits; }

}  // namespace

ErofsWriter::ErofsWriter(Node* root, std::vector<uint64_t> stored_blocks, Resolve resolve)
    : root_(root), stored_blocks_(std::move(stored_blocks)), resolve_(std::move(resolve)) {}

std::string ErofsWriter::PathOf(const Node* node) const {
  if (node == root_) return "";
  std::string path(node->name);
  for (const Node* at = node->parent; at != root_; at = at->parent) path = std::string(at->name) + "/" + path;
  return path;
}

// Sorted as the kernel searches: by bytes.
void ErofsWriter::Children(Node* folder, std::vector<Node*>* children) const {
  children->clear();
  for (Node* child = folder->first; child != nullptr; child = child->next) children->push_back(child);
  std::sort(children->begin(), children->end(), [](const Node* a, const Node* b) { return a->name < b->name; });
}

const char* ErofsWriter::Lay(std::string* entry) {
  std::vector<bool> used(stored_blocks_.size(), false);
  std::vector<Node*> children;
  std::vector<Node*> open{root_};
  root_->inode->links = 2;
  order_.push_back({root_->inode, root_});
  // Depth first, names in order: what is read together lies together.
  while (!open.empty()) {
    Node* folder = open.back();
    open.pop_back();
    Children(folder, &children);
    const size_t first = open.size();
    for (Node* child : children) {
      Inode* inode = child->inode;
      const bool is_folder = inode->type == EntryType::kDirectory;
      if (is_folder) folder->inode->links++;
      if (inode->links == 0) order_.push_back({inode, child});
      inode->links += is_folder ? 2 : 1;
      if (is_folder) open.push_back(child);
      if (inode->extent_count > 0) used[inode->layer] = true;
    }
    std::reverse(open.begin() + static_cast<ptrdiff_t>(first), open.end());
  }
  device_of_.assign(stored_blocks_.size(), 0);
  for (size_t layer = 0; layer < used.size(); layer++) {
    if (!used[layer]) continue;
    devices_.push_back(static_cast<uint16_t>(layer));
    device_of_[layer] = static_cast<uint16_t>(devices_.size());
  }
  metadata_bytes_ = kSuperAt + kSuper + kDeviceSlot * devices_.size();
  layouts_.reserve(order_.size());
  bytes_.reserve(order_.size());
  for (Item& item : order_) {
    const char* problem = Size(&item);
    if (problem == nullptr) continue;
    *entry = PathOf(item.node);
    return problem;
  }
  if (BlocksOf(metadata_bytes_) + data_blocks_ > kMaxBlocks) {
    *entry = "";
    return "the index of the image would be larger than an index can be";
  }
  return nullptr;
}

// Decides where the inode and its data go.
const char* ErofsWriter::Size(Item* item) {
  Inode& inode = *item->inode;
  Layout layout{0, 0, false};
  const uint8_t* at = inode.xattrs;
  for (uint16_t i = 0; i < inode.xattr_count; i++) {
    if (PrefixOf(NextXattr(&at).name) == nullptr) return "an extended attribute of it is of no known kind";
  }
  const uint64_t xattrs = XattrBytes(inode);
  if ((xattrs - std::min(xattrs, kXattrHeader)) / 4 + 1 > 0xffff) return "its extended attributes take too much room";
  uint64_t bytes = 0;
  uint64_t tail = kInode + xattrs;
  if (inode.type == EntryType::kDirectory) {
    std::vector<uint8_t> content;
    Directory(item->node, &content);
    bytes = content.size();
  } else if (inode.type == EntryType::kSymlink) {
    bytes = inode.link.size();
  } else if (inode.type == EntryType::kFile && inode.size > 0) {
    layout.chunk_bits = static_cast<uint8_t>(ChunkBits(inode));
    const uint64_t chunks = ChunkCount(inode, layout.chunk_bits);
    if (chunks > kMaxChunks) return "its content lies in too many pieces for its size";
    tail = Up(tail, kChunkIndex) + chunks * kChunkIndex;
  }
  if (bytes > 0) {
    layout.is_inline = kInode + xattrs + bytes <= kBlock;
    if (layout.is_inline) {
      tail += bytes;
    } else {
      layout.data_block = static_cast<uint32_t>(data_blocks_);
      data_blocks_ += BlocksOf(bytes);
    }
  }
  metadata_bytes_ = Up(metadata_bytes_, kSlot);
  // What is inline may not cross a block.
  if (layout.is_inline && metadata_bytes_ % kBlock + tail > kBlock) metadata_bytes_ = Up(metadata_bytes_, kBlock);
  // The superblock has 16 bits for the root's number; it is the first.
  inode.place = metadata_bytes_ / kSlot;
  metadata_bytes_ += tail;
  bytes_.push_back(bytes);
  layouts_.push_back(layout);
  return nullptr;
}

// Blocks of directory entries: first the entries, then their names. "." and ".." stand among the others.
void ErofsWriter::Directory(Node* folder, std::vector<uint8_t>* out) const {
  struct Name {
    std::string_view name;
    const Inode* inode;
  };
  std::vector<Name> names{{".", folder->inode}, {"..", folder->parent->inode}};
  for (const Node* child = folder->first; child != nullptr; child = child->next) names.push_back({child->name, child->inode});
  std::sort(names.begin(), names.end(), [](const Name& a, const Name& b) { return a.name < b.name; });
  out->clear();
  for (size_t from = 0; from < names.size();) {
    uint64_t room = kBlock;
    size_t to = from;
    for (; to < names.size() && kDirent + names[to].name.size() <= room; to++) room -= kDirent + names[to].name.size();
    uint64_t name_at = kDirent * (to - from);
    for (size_t i = from; i < to; i++) {
      Put(out, names[i].inode->place);
      Put(out, static_cast<uint16_t>(name_at));
      Put(out, FileType(*names[i].inode));
      Put(out, uint8_t{0});
      name_at += names[i].name.size();
    }
    for (size_t i = from; i < to; i++) PutText(out, names[i].name);
    if (to < names.size()) out->resize(Up(out->size(), kBlock), 0);
    from = to;
  }
}

void ErofsWriter::Chunks(const Inode& inode, std::vector<uint8_t>* out) const {
  const unsigned bits = ChunkBits(inode);
  const uint64_t count = ChunkCount(inode, bits);
  uint32_t next = 0;
  for (uint64_t chunk = 0; chunk < count; chunk++) {
    const uint64_t at = chunk << bits;
    Extent extent;
    while (next < inode.extent_count) {
      extent = ExtentAt(inode.extents, next);
      if (at < extent.at + extent.blocks) break;
      next++;
    }
    const bool hole = next == inode.extent_count || at < extent.at;
    Put(out, uint16_t{0});
    Put(out, hole ? uint16_t{0} : device_of_[inode.layer]);
    Put(out, hole ? kHole : static_cast<uint32_t>(resolve_(inode.layer, extent.stored) + (at - extent.at)));
  }
}

// At the inode's place, which is where `out` ends.
void ErofsWriter::Metadata(const Item& item, std::vector<uint8_t>* out) {
  const size_t index = static_cast<size_t>(&item - order_.data());
  const Inode& inode = *item.inode;
  const Layout& layout = layouts_[index];
  const bool chunked = inode.type == EntryType::kFile && inode.size > 0;
  const uint64_t xattrs = XattrBytes(inode);
  const uint16_t data_layout = chunked ? kChunked : layout.is_inline ? kInline : kPlain;
  uint32_t where = 0;
  if (chunked) {
    where = kChunkIndexes | layout.chunk_bits;
  } else if (HasNumber(inode)) {
    where = DeviceNumber(inode);
  } else if (bytes_[index] > 0 && !layout.is_inline) {
    where = static_cast<uint32_t>(BlocksOf(metadata_bytes_)) + layout.data_block;
  }
  Put(out, static_cast<uint16_t>(1 | data_layout << 1));
  Put(out, static_cast<uint16_t>(xattrs == 0 ? 0 : (xattrs - kXattrHeader) / 4 + 1));
  Put(out, ModeOf(inode));
  Put(out, uint16_t{0});
  Put(out, inode.type == EntryType::kFile ? inode.size : bytes_[index]);
  Put(out, where);
  Put(out, static_cast<uint32_t>(index + 1));
  Put(out, inode.uid);
  Put(out, inode.gid);
  Put(out, inode.mtime);
  Put(out, inode.mtime_ns);
  Put(out, inode.links);
  out->resize(out->size() + 16, 0);
  if (xattrs > 0) {
    out->resize(out->size() + kXattrHeader, 0);
    const uint8_t* at = inode.xattrs;
    for (uint16_t i = 0; i < inode.xattr_count; i++) {
      const XattrView xattr = NextXattr(&at);
      const Prefix* prefix = PrefixOf(xattr.name);
      const std::string_view name = xattr.name.substr(prefix->text.size());
      Put(out, static_cast<uint8_t>(name.size()));
      Put(out, prefix->number);
      Put(out, static_cast<uint16_t>(xattr.value.size()));
      PutText(out, name);
      PutText(out, xattr.value);
      out->resize(Up(out->size(), 4), 0);
    }
  }
  if (chunked) {
    out->resize(Up(out->size(), kChunkIndex), 0);
    Chunks(inode, out);
  } else if (layout.is_inline) {
    std::vector<uint8_t> content;
    if (inode.type == EntryType::kDirectory) {
      Directory(item.node, &content);
    } else {
      PutText(&content, inode.link);
    }
    out->insert(out->end(), content.begin(), content.end());
  }
}

void ErofsWriter::Superblock(std::vector<uint8_t>* out) const {
  out->resize(kSuperAt, 0);
  Put(out, kMagic);
  Put(out, uint32_t{0});  // no checksum: verity stands over all of it
  Put(out, uint32_t{0});  // compatible features
  Put(out, static_cast<uint8_t>(kBlockBits));
  Put(out, uint8_t{0});
  Put(out, static_cast<uint16_t>(root_->inode->place));
  Put(out, static_cast<uint64_t>(order_.size()));
  Put(out, uint64_t{0});  // build time
  Put(out, uint32_t{0});
  Put(out, static_cast<uint32_t>(BlocksOf(metadata_bytes_) + data_blocks_));
  Put(out, uint32_t{0});  // metadata begins at block 0
  Put(out, uint32_t{0});  // no shared attributes
  out->resize(out->size() + 32, 0);  // identifier and name
  const bool devices = !devices_.empty();
  Put(out, devices ? kChunkedFile | kDeviceTable : kChunkedFile);
  Put(out, uint16_t{0});
  Put(out, static_cast<uint16_t>(devices_.size()));
  Put(out, static_cast<uint16_t>(devices ? (kSuperAt + kSuper) / kDeviceSlot : 0));
  out->resize(kSuperAt + kSuper, 0);
  for (const uint16_t layer : devices_) {
    const size_t at = out->size();
    out->resize(at + 64, 0);
    Put(out, static_cast<uint32_t>(stored_blocks_[layer]));
    Put(out, uint32_t{0});
    out->resize(at + kDeviceSlot, 0);
  }
}

int ErofsWriter::Write(int fd) {
  std::vector<uint8_t> buffer;
  uint64_t written = 0;
  const auto flush = [&]() {
    const uint8_t* at = buffer.data();
    for (size_t left = buffer.size(); left > 0;) {
      const ssize_t count = pwrite(fd, at, left, static_cast<off_t>(written));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno;
      at += count;
      left -= static_cast<size_t>(count);
      written += static_cast<uint64_t>(count);
    }
    buffer.clear();
    return 0;
  };
  // `written` is a multiple of what anything is aligned to whenever alignment within `buffer` is asked for.
  std::vector<uint8_t> piece;
  const auto append = [&](uint64_t place) {
    buffer.resize(static_cast<size_t>(place - written), 0);
    buffer.insert(buffer.end(), piece.begin(), piece.end());
    return buffer.size() < kBuffer ? 0 : flush();
  };
  Superblock(&piece);
  if (const int error = append(0)) return error;
  for (const Item& item : order_) {
    piece.clear();
    Metadata(item, &piece);
    if (const int error = append(item.inode->place * kSlot)) return error;
  }
  const uint64_t data = Up(metadata_bytes_, kBlock);
  for (size_t i = 0; i < order_.size(); i++) {
    if (bytes_[i] == 0 || layouts_[i].is_inline) continue;
    piece.clear();
    if (order_[i].inode->type == EntryType::kDirectory) {
      Directory(order_[i].node, &piece);
    } else {
      PutText(&piece, order_[i].inode->link);
    }
    if (const int error = append(data + layouts_[i].data_block * kBlock)) return error;
  }
  buffer.resize(static_cast<size_t>(data + data_blocks_ * kBlock - written), 0);
  return flush();
}

}  // namespace caisson
