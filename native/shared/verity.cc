#include "verity.h"

#include <algorithm>
#include <cstring>

namespace caisson {

namespace {

constexpr size_t kDigest = SHA256_DIGEST_LENGTH;
// How much of the lowest level is kept before it goes to the file: a whole number of hash blocks.
constexpr size_t kLeafBuffer = 64 * VerityBuilder::kHashBlock;

size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

int VerityBuilder::Begin(const std::string& path, size_t data_block, const std::vector<uint8_t>& salt) {
  data_block_ = data_block;
  salted_.Update(salt.data(), salt.size());
  pending_.reserve(data_block);
  leaves_.reserve(kLeafBuffer);
  return leaf_file_.CreateAnonymous(path);
}

void VerityBuilder::HashBlock(const uint8_t* block) {
  const size_t at = leaves_.size();
  leaves_.resize(at + kDigest);
  salted_.DigestWithPrefix(block, data_block_, leaves_.data() + at);
  data_blocks_++;
}

int VerityBuilder::Update(const uint8_t* bytes, size_t length) {
  data_bytes_ += length;
  if (!pending_.empty()) {
    const size_t taken = std::min(length, data_block_ - pending_.size());
    pending_.insert(pending_.end(), bytes, bytes + taken);
    bytes += taken;
    length -= taken;
    if (pending_.size() < data_block_) return 0;
    HashBlock(pending_.data());
    pending_.clear();
  }
  for (; length >= data_block_; bytes += data_block_, length -= data_block_) {
    HashBlock(bytes);
    if (leaves_.size() < kLeafBuffer) continue;
    if (const int error = FlushLeaves()) return error;
  }
  pending_.assign(bytes, bytes + length);
  return 0;
}

// Pads to whole hash blocks, which before the end of the data they are anyway.
int VerityBuilder::FlushLeaves() {
  leaves_.resize(RoundUp(leaves_.size(), kHashBlock), 0);
  for (size_t at = 0; at < leaves_.size(); at += kHashBlock) {
    parents_.resize(parents_.size() + kDigest);
    salted_.DigestWithPrefix(leaves_.data() + at, kHashBlock, parents_.data() + parents_.size() - kDigest);
  }
  const int error = leaf_file_.WriteAt(leaves_.data(), leaves_.size(), leaf_bytes_);
  leaf_bytes_ += leaves_.size();
  leaves_.clear();
  return error;
}

// The lowest level, complete. A single block needs no tree: its digest is the root.
int VerityBuilder::Leaves(VerityTree* tree, bool* has_tree) {
  tree->hash_offset = RoundUp(std::max<uint64_t>(data_bytes_, data_block_), kHashBlock);
  if (!pending_.empty() || data_blocks_ == 0) {
    pending_.resize(data_block_, 0);
    HashBlock(pending_.data());
  }
  tree->data_blocks = data_blocks_;
  *has_tree = data_blocks_ > 1;
  if (*has_tree) return FlushLeaves();
  std::copy_n(leaves_.begin(), kDigest, tree->root_hash.begin());
  return 0;
}

// Levels above the lowest, bottom up; each is whole hash blocks. The root hash is the digest of the topmost block.
void VerityBuilder::Levels(VerityTree* tree, std::vector<std::vector<uint8_t>>* upper) {
  std::vector<uint8_t> digests = std::move(parents_);
  while (digests.size() > kDigest) {
    digests.resize(RoundUp(digests.size(), kHashBlock), 0);
    std::vector<uint8_t> next(digests.size() / kHashBlock * kDigest);
    for (size_t block = 0; block * kHashBlock < digests.size(); block++) {
      salted_.DigestWithPrefix(digests.data() + block * kHashBlock, kHashBlock, next.data() + block * kDigest);
    }
    upper->push_back(std::move(digests));
    digests = std::move(next);
  }
  std::copy_n(digests.begin(), kDigest, tree->root_hash.begin());
}

int VerityBuilder::FinishRoot(VerityTree* tree) {
  bool has_tree = false;
  if (const int error = Leaves(tree, &has_tree)) return error;
  std::vector<std::vector<uint8_t>> upper;
  if (has_tree) Levels(tree, &upper);
  return 0;
}

int VerityBuilder::Finish(File& data, VerityTree* tree) {
  bool has_tree = false;
  if (const int error = Leaves(tree, &has_tree)) return error;
  const std::vector<uint8_t> padding(static_cast<size_t>(tree->hash_offset - data_bytes_), 0);
  if (const int error = data.WriteAt(padding.data(), padding.size(), data_bytes_)) return error;
  if (!has_tree) {
    // The kernel still wants room for the device it maps.
    const std::vector<uint8_t> room(kHashBlock, 0);
    return data.WriteAt(room.data(), room.size(), tree->hash_offset);
  }
  std::vector<std::vector<uint8_t>> upper;
  Levels(tree, &upper);

  // On disk the top level comes first.
  uint64_t at = tree->hash_offset;
  for (auto level = upper.rbegin(); level != upper.rend(); ++level) {
    if (const int error = data.WriteAt(level->data(), level->size(), at)) return error;
    at += level->size();
  }
  std::vector<uint8_t> buffer(kLeafBuffer);
  for (uint64_t done = 0; done < leaf_bytes_; done += buffer.size()) {
    const size_t length = static_cast<size_t>(std::min<uint64_t>(buffer.size(), leaf_bytes_ - done));
    if (const int error = leaf_file_.ReadAt(buffer.data(), length, done)) return error;
    if (const int error = data.WriteAt(buffer.data(), length, at + done)) return error;
  }
  return 0;
}

}  // namespace caisson
