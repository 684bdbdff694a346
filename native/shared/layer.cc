#include "layer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace caisson {

namespace {

// Large enough that hashing and writing run at full speed, small enough to stay in the second-level cache; a multiple of
// a tar's block.
constexpr size_t kBuffer = 256 * 1024;
constexpr size_t kPlain = 64 * 1024;
// Small layers of zeros compress beyond any sensible ratio and harm nobody.
constexpr uint64_t kRatioFree = 16 * 1024 * 1024;

}  // namespace

Layer::~Layer() {
  Cancel();
  StopWorker();
}

LayerStatus Layer::FileStatus(int error) {
  error_ = error;
  return error == 0 ? LayerStatus::kOk : LayerStatus::kFile;
}

LayerStatus Layer::Begin(const LayerOptions& options) {
  max_tar_bytes_ = options.max_tar_bytes;
  max_ratio_ = options.max_ratio;
  path_ = options.path;
  decompressor_ = MakeDecompressor(options.compression);
  if (decompressor_ == nullptr) return LayerStatus::kCorrupt;
  if (!options.key.empty()) {
    decryptor_ = std::make_unique<Decryptor>();
    if (!decryptor_->Begin(options.key, options.nonce, options.hmac)) return LayerStatus::kNoMemory;
    plain_.resize(kPlain);
  }
  stored_ = options.compression == "none";
  buffers_[0].bytes.resize(kBuffer);
  if (const int error = tar_.Create(options.path)) return FileStatus(error);
  if (const int error = catalogue_.Create(options.catalogue)) return FileStatus(error);
  return FileStatus(verity_.Begin(options.path, TarReader::kBlock, options.salt));
}

void Layer::Cancel() {
  cancelled_ = true;
  // Whoever waits has looked at the flag before this, or will after.
  const std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

// What the worker finds stands earlier in the stream than what the caller does, so it is what is told.
LayerStatus Layer::Write(const uint8_t* bytes, size_t length) {
  const LayerStatus status = WriteAll(bytes, length);
  if (status == LayerStatus::kOk || status == LayerStatus::kCancelled) return status;
  const LayerStatus earlier = StopWorker();
  return earlier == LayerStatus::kOk ? status : earlier;
}

LayerStatus Layer::WriteAll(const uint8_t* bytes, size_t length) {
  compressed_bytes_ += length;
  // Without encryption and compression the layer is its own tar: one digest serves thrice.
  if (!stored_ || decryptor_ != nullptr) compressed_hash_.Update(bytes, length);
  if (decryptor_ == nullptr) return Decompress(bytes, length);
  while (length > 0) {
    const size_t taken = std::min(length, plain_.size());
    if (!decryptor_->Push(bytes, taken, plain_.data())) return LayerStatus::kNoMemory;
    plain_hash_.Update(plain_.data(), taken);
    if (const LayerStatus status = Decompress(plain_.data(), taken); status != LayerStatus::kOk) return status;
    bytes += taken;
    length -= taken;
  }
  return LayerStatus::kOk;
}

LayerStatus Layer::Decompress(const uint8_t* bytes, size_t length) {
  for (;;) {
    if (cancelled_) return LayerStatus::kCancelled;
    Buffer& buffer = buffers_[passed_ % kBuffers];
    size_t produced = 0;
    const Inflated state = decompressor_->Push(bytes, length, buffer.bytes.data() + buffer.filled,
                                               buffer.bytes.size() - buffer.filled, &produced);
    switch (state) {
      case Inflated::kCorrupt:
        return LayerStatus::kCorrupt;
      case Inflated::kWindowTooLarge:
        return LayerStatus::kWindowTooLarge;
      case Inflated::kNoMemory:
        return LayerStatus::kNoMemory;
      case Inflated::kNeedInput:
      case Inflated::kOutputFull:
        break;
    }
    buffer.filled += produced;
    if (const LayerStatus status = Produced(produced); status != LayerStatus::kOk) return status;
    if (state == Inflated::kNeedInput) return LayerStatus::kOk;
  }
}

LayerStatus Layer::Produced(size_t bytes) {
  if (bytes > max_tar_bytes_ - tar_bytes_) return LayerStatus::kTooLarge;
  tar_bytes_ += bytes;
  if (tar_bytes_ > kRatioFree && tar_bytes_ / max_ratio_ > compressed_bytes_) return LayerStatus::kRatio;
  return buffers_[passed_ % kBuffers].filled < kBuffer ? LayerStatus::kOk : Pass();
}

LayerStatus Layer::Pass() {
  if (!has_worker_) has_worker_ = pthread_create(&worker_, nullptr, &Layer::Work, this) == 0;
  if (!has_worker_) {
    Buffer& buffer = buffers_[passed_ % kBuffers];
    const LayerStatus status = Take(buffer.bytes.data(), buffer.filled);
    buffer.filled = 0;
    return status;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  passed_++;
  changed_.notify_all();
  changed_.wait(lock, [this] {
    return passed_ - taken_ < kBuffers || worker_status_ != LayerStatus::kOk || cancelled_;
  });
  if (worker_status_ != LayerStatus::kOk) return worker_status_;
  if (cancelled_) return LayerStatus::kCancelled;
  Buffer& next = buffers_[passed_ % kBuffers];
  next.bytes.resize(kBuffer);
  next.filled = 0;
  return LayerStatus::kOk;
}

void* Layer::Work(void* layer) {
  static_cast<Layer*>(layer)->Loop();
  return nullptr;
}

void Layer::Loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return taken_ < passed_ || ending_ || cancelled_; });
    if (cancelled_ || taken_ == passed_) return;
    const Buffer& buffer = buffers_[taken_ % kBuffers];
    lock.unlock();
    const LayerStatus status = Take(buffer.bytes.data(), buffer.filled);
    lock.lock();
    taken_++;
    if (status != LayerStatus::kOk) worker_status_ = status;
    changed_.notify_all();
    if (status != LayerStatus::kOk) return;
  }
}

// After it, what the worker did is the caller's to see.
LayerStatus Layer::StopWorker() {
  if (!has_worker_) return LayerStatus::kOk;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  pthread_join(worker_, nullptr);
  has_worker_ = false;
  return worker_status_;
}

LayerStatus Layer::Take(const uint8_t* bytes, size_t length) {
  tar_hash_.Update(bytes, length);
  const size_t belonging = reader_.Blocks(bytes, length / TarReader::kBlock);
  if (reader_.failed()) return LayerStatus::kEntry;
  if (reader_.sink_failed()) return LayerStatus::kFile;
  return Store(bytes, belonging * TarReader::kBlock);
}

bool Layer::Keep(int error) {
  error_ = error;
  return error == 0;
}

bool Layer::Append(const uint8_t* block) {
  if (!has_appendix_) {
    if (!Keep(appendix_.CreateAnonymous(path_))) return false;
    has_appendix_ = true;
  }
  if (!Keep(appendix_.WriteAt(block, TarReader::kBlock, appendix_bytes_))) return false;
  appendix_bytes_ += TarReader::kBlock;
  return true;
}

LayerStatus Layer::Store(const uint8_t* bytes, size_t length) {
  if (length == 0) return LayerStatus::kOk;
  if (const int error = tar_.WriteAt(bytes, length, stored_bytes_)) return FileStatus(error);
  stored_bytes_ += length;
  return FileStatus(verity_.Update(bytes, length));
}

LayerStatus Layer::StoreAppendix() {
  std::vector<uint8_t> buffer(kBuffer);
  for (uint64_t done = 0; done < appendix_bytes_;) {
    const size_t length = static_cast<size_t>(std::min<uint64_t>(buffer.size(), appendix_bytes_ - done));
    if (const int error = appendix_.ReadAt(buffer.data(), length, done)) return FileStatus(error);
    if (const LayerStatus status = Store(buffer.data(), length); status != LayerStatus::kOk) return status;
    done += length;
  }
  return LayerStatus::kOk;
}

// The end of the archive and what goes behind it.
LayerStatus Layer::Complete(size_t loose_bytes) {
  reader_.Finish(loose_bytes);
  if (reader_.failed()) return LayerStatus::kEntry;
  const std::vector<uint8_t> marker(2 * TarReader::kBlock, 0);
  if (const LayerStatus status = Store(marker.data(), marker.size()); status != LayerStatus::kOk) return status;
  const uint64_t appendix = stored_bytes_ / TarReader::kBlock;
  if (const LayerStatus status = StoreAppendix(); status != LayerStatus::kOk) return status;
  return FileStatus(catalogue_.Finish(stored_bytes_ / TarReader::kBlock, appendix));
}

LayerStatus Layer::Finish(LayerResult* result) {
  if (const LayerStatus status = StopWorker(); status != LayerStatus::kOk) return status;
  if (cancelled_) return LayerStatus::kCancelled;
  // Before anything is concluded from what was decrypted.
  if (decryptor_ != nullptr && !decryptor_->Finish()) return LayerStatus::kUnauthenticated;
  if (!decompressor_->AtEnd()) return LayerStatus::kTruncated;
  const Buffer& rest = buffers_[passed_ % kBuffers];
  if (const LayerStatus status = Take(rest.bytes.data(), rest.filled); status != LayerStatus::kOk) return status;
  const size_t loose = rest.filled % TarReader::kBlock;
  result->diff_id = tar_hash_.Finish();
  const bool plain = decryptor_ == nullptr;
  result->compressed_digest = stored_ && plain ? result->diff_id : compressed_hash_.Finish();
  result->plain_digest = plain ? result->compressed_digest : plain_hash_.Finish();
  result->compressed_bytes = compressed_bytes_;
  result->tar_bytes = tar_bytes_;
  if (const LayerStatus status = Complete(loose); status != LayerStatus::kOk) return status;
  return FileStatus(verity_.Finish(tar_, &result->tree));
}

namespace {

int Feed(const File& file, uint64_t size, VerityBuilder* verity) {
  std::vector<uint8_t> buffer(kBuffer);
  for (uint64_t done = 0; done < size;) {
    const size_t length = static_cast<size_t>(std::min<uint64_t>(buffer.size(), size - done));
    if (const int error = file.ReadAt(buffer.data(), length, done)) return error;
    if (const int error = verity->Update(buffer.data(), length)) return error;
    done += length;
  }
  return 0;
}

}  // namespace

LayerStatus AppendVerity(const std::string& path, size_t data_block, const std::vector<uint8_t>& salt, VerityTree* tree,
                         int* error) {
  File file;
  VerityBuilder verity;
  uint64_t size = 0;
  *error = file.OpenExisting(path);
  if (*error == 0) *error = file.Size(&size);
  if (*error == 0) *error = verity.Begin(path, data_block, salt);
  if (*error == 0) *error = Feed(file, size, &verity);
  if (*error == 0) *error = verity.Finish(file, tree);
  return *error == 0 ? LayerStatus::kOk : LayerStatus::kFile;
}

LayerStatus VerityRoot(const std::string& path, uint64_t bytes, size_t data_block, const std::vector<uint8_t>& salt,
                       VerityTree* tree, int* error) {
  File file;
  VerityBuilder verity;
  *error = file.OpenReadOnly(path);
  if (*error == 0) *error = verity.Begin(path, data_block, salt);
  if (*error == 0) *error = Feed(file, bytes, &verity);
  if (*error == 0) *error = verity.FinishRoot(tree);
  return *error == 0 ? LayerStatus::kOk : LayerStatus::kFile;
}

}  // namespace caisson
