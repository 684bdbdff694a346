// One layer in one pass: compressed bytes in; digest of them, decryption, decompression, digest of the tar (diff id), the
// tar in a file with its dm-verity tree behind it, and its catalogue out. Memory does not depend on the layer's size but
// for the tree's second level. No Node types: `addon.cc` runs this on worker threads, one call at a time.
//
// Two threads share the work, since neither half is fast: the caller's decompresses, one of this class's own hashes,
// reads the tar and stores. Buffers go round between them; a full ring makes the caller wait.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "catalogue.h"
#include "decompressor.h"
#include "decryptor.h"
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
  kEntry = 9,            // an entry of the tar is refused; see `problem`
  kUnauthenticated = 10,  // the ciphertext is not what its code was made for
};

struct LayerOptions {
  std::string path;       // of the tar; must not exist
  std::string catalogue;  // likewise
  std::string compression;
  std::vector<uint8_t> salt;
  uint64_t max_tar_bytes = 0;
  uint64_t max_ratio = 0;
  // All three or none: see decryptor.h.
  std::vector<uint8_t> key, nonce, hmac;
};

struct LayerResult {
  Digest compressed_digest{};  // of what came in
  Digest plain_digest{};       // of what was decrypted; the same without encryption
  Digest diff_id{};
  uint64_t compressed_bytes = 0;
  uint64_t tar_bytes = 0;
  VerityTree tree;  // over what is stored: see tar.h
};

class Layer {
 public:
  Layer() = default;
  ~Layer();
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  // Creates the files.
  LayerStatus Begin(const LayerOptions& options);
  LayerStatus Write(const uint8_t* bytes, size_t length);
  LayerStatus Finish(LayerResult* result);
  // From any thread: the running or next call ends with kCancelled.
  void Cancel();
  // Of the last kFile.
  int error() const { return error_; }
  uint64_t tar_bytes() const { return tar_bytes_; }
  // Of the last kEntry: what is wrong, and with which entry, as named in the archive.
  const std::string& problem() const { return reader_.problem(); }
  const std::string& problem_entry() const { return reader_.problem_entry(); }

 private:
  struct Buffer {
    std::vector<uint8_t> bytes;
    size_t filled = 0;
  };
  static constexpr size_t kBuffers = 4;

  LayerStatus WriteAll(const uint8_t* bytes, size_t length);
  LayerStatus Decompress(const uint8_t* bytes, size_t length);
  LayerStatus Produced(size_t bytes);
  // Passes the filling buffer on and takes the next one.
  LayerStatus Pass();
  LayerStatus StopWorker();
  static void* Work(void* layer);
  void Loop();

  // The worker's side, or the caller's when there is none.
  LayerStatus Take(const uint8_t* bytes, size_t length);
  LayerStatus Store(const uint8_t* bytes, size_t length);
  LayerStatus StoreAppendix();
  LayerStatus Complete(size_t loose_bytes);
  LayerStatus FileStatus(int error);

  // The caller's.
  std::unique_ptr<Decompressor> decompressor_;
  std::unique_ptr<Decryptor> decryptor_;
  std::vector<uint8_t> plain_;
  Sha256 compressed_hash_;
  Sha256 plain_hash_;
  uint64_t max_tar_bytes_ = 0;
  uint64_t max_ratio_ = 0;
  uint64_t compressed_bytes_ = 0;
  uint64_t tar_bytes_ = 0;
  bool stored_ = false;

  // Between both.
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  Buffer buffers_[kBuffers];
  size_t passed_ = 0;  // how many buffers were, and how many of them were taken; under the mutex
  size_t taken_ = 0;
  bool ending_ = false;
  LayerStatus worker_status_ = LayerStatus::kOk;
  pthread_t worker_{};
  bool has_worker_ = false;

  bool Keep(int error);
  bool Append(const uint8_t* block);

  TarReader reader_{{[this](const LayerEntry& entry) { return Keep(catalogue_.Add(entry)); },
                     [this](const uint8_t* block) { return Append(block); }}};
  CatalogueWriter catalogue_;
  File tar_;
  std::string path_;
  File appendix_;
  bool has_appendix_ = false;
  uint64_t appendix_bytes_ = 0;
  VerityBuilder verity_;
  Sha256 tar_hash_;
  uint64_t stored_bytes_ = 0;
  int error_ = 0;
};

// Appends a dm-verity tree to an existing file. `error` is set for kFile.
LayerStatus AppendVerity(const std::string& path, size_t data_block, const std::vector<uint8_t>& salt, VerityTree* tree,
                         int* error);

// The tree that the first `bytes` of a file would have; reads only.
LayerStatus VerityRoot(const std::string& path, uint64_t bytes, size_t data_block, const std::vector<uint8_t>& salt,
                       VerityTree* tree, int* error);

}  // namespace caisson
