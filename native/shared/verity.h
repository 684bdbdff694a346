// dm-verity hash trees, hash type 1 (salt before the block), SHA-256, 4096-byte hash blocks; Linux
// Documentation/admin-guide/device-mapper/verity.rst. Data streams in once; memory grows by 32 bytes per 64 KiB (512-byte
// data blocks) since the lowest level waits in a nameless file.
#pragma once

#include <string>
#include <vector>

#include "file.h"
#include "sha256.h"

namespace caisson {

struct VerityTree {
  uint64_t data_blocks = 0;
  // Byte offset of the tree in the data's own file, a multiple of the hash block size.
  uint64_t hash_offset = 0;
  Digest root_hash{};
};

class VerityBuilder {
 public:
  static constexpr size_t kHashBlock = 4096;
  static constexpr size_t kMaxSalt = 256;

  // `data_block` is 512 or 4096. The nameless file is made in the folder of `path`. Returns 0 or errno.
  int Begin(const std::string& path, size_t data_block, const std::vector<uint8_t>& salt);

  // Returns 0 or errno.
  int Update(const uint8_t* bytes, size_t length);

  // Pads `data` with zeros to a whole data block and then to a hash block, appends the tree. Returns 0 or errno.
  // Data without any byte counts as one block of zeros: the kernel has no empty verity device.
  int Finish(File& data, VerityTree* tree);

  // The tree's root without a tree: what `Finish` would say, for data that have one already.
  int FinishRoot(VerityTree* tree);

 private:
  void HashBlock(const uint8_t* block);
  int FlushLeaves();
  void Levels(VerityTree* tree, std::vector<std::vector<uint8_t>>* upper);
  int Leaves(VerityTree* tree, bool* has_tree);

  Sha256 salted_;
  size_t data_block_ = 0;
  std::vector<uint8_t> pending_;   // less than one data block
  std::vector<uint8_t> leaves_;    // digests of data blocks, flushed as whole hash blocks
  std::vector<uint8_t> parents_;   // digests of the flushed hash blocks
  File leaf_file_;
  uint64_t leaf_bytes_ = 0;
  uint64_t data_bytes_ = 0;
  uint64_t data_blocks_ = 0;
};

}  // namespace caisson
