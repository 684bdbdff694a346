#include "tar-sparse.h"

#include <algorithm>
#include <cstring>

namespace caisson {

namespace {

constexpr size_t kMaxRuns = 65536;
constexpr uint64_t kBlock = kEntryBlock;

}  // namespace

const char* SparseContent::Begin(std::vector<SparseRun> runs, uint64_t size, uint64_t data_bytes, uint64_t stored) {
  if (runs.size() > kMaxRuns) return "its map of sparse data has more than 65536 runs";
  uint64_t end = 0, total = 0;
  for (const SparseRun& run : runs) {
    // Sums stay far from overflow: every number is bounded where it is read.
    if (run.offset < end || run.length > size || run.offset > size - run.length) {
      return "its runs of sparse data overlap, or lie beyond its end";
    }
    end = run.offset + run.length;
    total += run.length;
  }
  if (total != data_bytes) return "its map of sparse data does not fit its data";
  uint64_t from = 0;
  for (const SparseRun& run : runs) {
    if (run.length > 0) AddRun(run, from, size, stored);
    from += run.length;
  }
  block_.assign(kBlock, 0);
  return nullptr;
}

void SparseContent::AddRun(const SparseRun& run, uint64_t from, uint64_t size, uint64_t stored) {
  const uint64_t end = run.offset + run.length;
  const uint64_t first = (run.offset + kBlock - 1) / kBlock;
  // The last block of the file may be cut short: nobody sees what follows it.
  const uint64_t last = end == size ? (end + kBlock - 1) / kBlock : end / kBlock;
  if (run.offset % kBlock != from % kBlock || first >= last) return AddCopy(from, run.length, run.offset);
  const uint64_t direct_at = first * kBlock;
  AddCopy(from, direct_at - run.offset, run.offset);
  direct_.push_back({first, last - first, stored + (from + (direct_at - run.offset)) / kBlock});
  const uint64_t direct_end = std::min(last * kBlock, end);
  AddCopy(from + (direct_end - run.offset), end - direct_end, direct_end);
}

void SparseContent::AddCopy(uint64_t from, uint64_t length, uint64_t to) {
  if (length > 0) copies_.push_back({from, length, to});
}

bool SparseContent::Push(const uint8_t* block, uint64_t* appended, const Append& append) {
  const uint64_t end = seen_ + kBlock;
  for (; next_copy_ < copies_.size() && copies_[next_copy_].from < end; next_copy_++) {
    Copy& copy = copies_[next_copy_];
    while (copy.length > 0 && copy.from < end) {
      const uint64_t at = copy.to / kBlock;
      if (has_block_ && at != block_at_ && !Flush(appended, append)) return false;
      has_block_ = true;
      block_at_ = at;
      const uint64_t within = copy.to % kBlock;
      const uint64_t length = std::min({copy.length, kBlock - within, end - copy.from});
      std::memcpy(block_.data() + within, block + (copy.from - seen_), static_cast<size_t>(length));
      copy.from += length;
      copy.to += length;
      copy.length -= length;
    }
    if (copy.length > 0) break;
  }
  seen_ = end;
  return true;
}

bool SparseContent::Flush(uint64_t* appended, const Append& append) {
  if (!append(block_.data())) return false;
  Extent* last = copied_.empty() ? nullptr : &copied_.back();
  const uint64_t stored = (*appended)++ | Extent::kInAppendix;
  if (last != nullptr && last->at + last->blocks == block_at_ && last->stored + last->blocks == stored) {
    last->blocks++;
  } else {
    copied_.push_back({block_at_, 1, stored});
  }
  std::fill(block_.begin(), block_.end(), 0);
  return true;
}

bool SparseContent::Finish(uint64_t* appended, const Append& append, std::vector<Extent>* extents) {
  if (has_block_ && !Flush(appended, append)) return false;
  extents->resize(direct_.size() + copied_.size());
  std::merge(direct_.begin(), direct_.end(), copied_.begin(), copied_.end(), extents->begin(),
             [](const Extent& a, const Extent& b) { return a.at < b.at; });
  return true;
}

}  // namespace caisson
