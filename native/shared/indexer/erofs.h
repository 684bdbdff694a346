// Writes the tree of an image as an EROFS file system whose files' contents are in the layers' tars, each of which is an
// extra device of it. Linux fs/erofs/erofs_fs.h; Documentation/filesystems/erofs.rst. Blocks are 512 bytes, since that is
// how a tar aligns its files. The same tree gives the same bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tree.h"

namespace caisson {

class ErofsWriter {
 public:
  // `stored_blocks`: of each layer's tar. `resolve`: block of layer's tar for an extent's `stored`.
  using Resolve = std::function<uint64_t(uint16_t layer, uint64_t stored)>;
  ErofsWriter(Node* root, std::vector<uint64_t> stored_blocks, Resolve resolve);

  // In the order of the image's pathnames. Null, or what is wrong with the tree; `entry` is then set.
  const char* Lay(std::string* entry);

  // To `fd`, from its start. 0 or errno.
  int Write(int fd);

  // Layers whose tars hold content that can be seen, in the order of the extra devices.
  const std::vector<uint16_t>& devices() const { return devices_; }
  uint64_t inodes() const { return order_.size(); }

 private:
  // One inode, once, at the first of its names.
  struct Item {
    Inode* inode;
    Node* node;
  };

  const char* Size(Item* item);
  void Place(uint64_t tail);
  void Children(Node* folder, std::vector<Node*>* children) const;
  void Directory(Node* folder, std::vector<uint8_t>* out) const;
  void Metadata(const Item& item, std::vector<uint8_t>* out);
  void Chunks(const Inode& inode, std::vector<uint8_t>* out) const;
  void Superblock(std::vector<uint8_t>* out) const;
  std::string PathOf(const Node* node) const;

  Node* root_;
  std::vector<uint64_t> stored_blocks_;
  Resolve resolve_;
  std::vector<uint16_t> devices_;
  std::vector<uint16_t> device_of_;  // layer to device, from 1; 0: none
  std::vector<Item> order_;
  struct Layout {
    uint32_t data_block;   // of the primary device, for what is not inline
    uint8_t chunk_bits;    // above those of a block
    bool is_inline;
  };
  std::vector<Layout> layouts_;
  std::vector<uint64_t> bytes_;  // of each inode's own data
  uint64_t metadata_bytes_ = 0;
  uint64_t data_blocks_ = 0;
};

}  // namespace caisson
