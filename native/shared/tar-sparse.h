// Content of a sparse file as it streams by. A tar holds the file's data run after run without gaps, so runs whose
// offsets are whole blocks can be read where they lie; what straddles blocks is copied behind the archive.
#pragma once

#include <functional>
#include <vector>

#include "tar-extended.h"

namespace caisson {

class SparseContent {
 public:
  // Stores one block behind the archive; false when that fails.
  using Append = std::function<bool(const uint8_t* block)>;

  // `stored`: block of the stored tar at which the data begin. `appended`: blocks behind the archive so far.
  // Null, or what is wrong. `data_bytes` is how much data the archive says it has.
  const char* Begin(std::vector<SparseRun> runs, uint64_t size, uint64_t data_bytes, uint64_t stored);

  // The next block of the archive's data. False when storing fails.
  bool Push(const uint8_t* block, uint64_t* appended, const Append& append);

  // After the last block. The extents, in order.
  bool Finish(uint64_t* appended, const Append& append, std::vector<Extent>* extents);

 private:
  // Bytes of the archive's data that are copied to a place in the file.
  struct Copy {
    uint64_t from;
    uint64_t length;
    uint64_t to;
  };

  void AddRun(const SparseRun& run, uint64_t from, uint64_t size, uint64_t stored);
  void AddCopy(uint64_t from, uint64_t length, uint64_t to);
  bool Flush(uint64_t* appended, const Append& append);

  std::vector<Extent> direct_;
  std::vector<Extent> copied_;
  std::vector<Copy> copies_;
  size_t next_copy_ = 0;
  uint64_t seen_ = 0;  // bytes of data
  bool has_block_ = false;
  uint64_t block_at_ = 0;  // of the file
  std::vector<uint8_t> block_;
};

}  // namespace caisson
