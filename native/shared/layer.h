// One layer in one pass: compressed bytes in; digest of them, decompression, digest of the tar (diff id), the tar in a
// file and its dm-verity tree behind it out. Memory does not depend on the layer's size but for the tree's second level.
// No Node types: `addon.cc` runs this on worker threads, one call at a time.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "decompressor.h"
#include "file.h"
#include "sha256.h"
#include "tar.h"
#include "verity.h"

namespace caisson {

enum class LayerStatus {
  kOk = 0,
  kTruncated = 1,       // the compressed stream ends early
  kCorrupt = 2,         // not the format it is said to be
  kWindowTooLarge = 3,  // zstd
  kTooLarge = 4,        // more tar bytes than allowed
  kRatio = 5,           // more tar bytes per compressed byte than allowed
  kFile = 6,            // `error` is the errno
  kCancelled = 7,
  kNoMemory = 8,
  kEntry = 9,           // an entry of the tar is refused; see `problem`
};

struct LayerOptions {
  std::string path;  // of the tar; must not exist
  std::string compression;
  std::vector<uint8_t> salt;
  uint64_t max_tar_bytes = 0;
  uint64_t max_ratio = 0;
};

struct LayerResult {
  Digest compressed_digest{};
  Digest diff_id{};
  uint64_t compressed_bytes = 0;
  uint64_t tar_bytes = 0;
  VerityTree tree;  // over what is stored: see tar.h
};

class Layer {
 public:
  // Creates the files.
  LayerStatus Begin(const LayerOptions& options);
  LayerStatus Write(const uint8_t* bytes, size_t length);
  LayerStatus Finish(LayerResult* result);
  // From any thread: the running or next call ends with kCancelled.
  void Cancel() { cancelled_ = true; }
  // Of the last kFile.
  int error() const { return error_; }
  uint64_t tar_bytes() const { return tar_bytes_; }
  // Of the last kEntry: what is wrong, and with which entry, as named in the archive.
  const std::string& problem() const { return scanner_.problem(); }
  const std::string& problem_entry() const { return scanner_.problem_entry(); }

 private:
  LayerStatus Take(size_t produced);
  LayerStatus Store(const uint8_t* bytes, size_t length);
  LayerStatus FileStatus(int error);

  std::unique_ptr<Decompressor> decompressor_;
  // The start of a tar block whose rest has not come yet, then what is being decompressed.
  std::vector<uint8_t> output_;
  size_t held_ = 0;
  TarScanner scanner_;
  File tar_;
  VerityBuilder verity_;
  Sha256 compressed_hash_;
  Sha256 tar_hash_;
  uint64_t max_tar_bytes_ = 0;
  uint64_t max_ratio_ = 0;
  uint64_t compressed_bytes_ = 0;
  uint64_t tar_bytes_ = 0;
  uint64_t stored_bytes_ = 0;
  std::atomic<bool> cancelled_{false};
  bool stored_ = false;
  int error_ = 0;
};

// Appends a dm-verity tree to an existing file. `error` is set for kFile.
LayerStatus AppendVerity(const std::string& path, size_t data_block, const std::vector<uint8_t>& salt,
                         const std::atomic<bool>& cancelled, VerityTree* tree, int* error);

}  // namespace caisson
