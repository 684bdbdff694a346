#include "layer.h"

#include <algorithm>
#include <cstring>

namespace caisson {

namespace {

// Large enough that hashing and writing run at full speed, small enough to stay in the second-level cache.
constexpr size_t kOutput = 256 * 1024;
// Small layers of zeros compress beyond any sensible ratio and harm nobody.
constexpr uint64_t kRatioFree = 16 * 1024 * 1024;

}  // namespace

LayerStatus Layer::FileStatus(int error) {
  error_ = error;
  return error == 0 ? LayerStatus::kOk : LayerStatus::kFile;
}

LayerStatus Layer::Begin(const LayerOptions& options) {
  max_tar_bytes_ = options.max_tar_bytes;
  max_ratio_ = options.max_ratio;
  decompressor_ = MakeDecompressor(options.compression);
  if (decompressor_ == nullptr) return LayerStatus::kCorrupt;
  stored_ = options.compression == "none";
  output_.resize(kOutput);
  if (const int error = tar_.Create(options.path)) return FileStatus(error);
  return FileStatus(verity_.Begin(options.path, TarScanner::kBlock, options.salt));
}

LayerStatus Layer::Write(const uint8_t* bytes, size_t length) {
  // Uncompressed layers are their own tar: one digest serves twice.
  if (!stored_) compressed_hash_.Update(bytes, length);
  compressed_bytes_ += length;
  for (;;) {
    if (cancelled_) return LayerStatus::kCancelled;
    size_t produced = 0;
    const Inflated state =
        decompressor_->Push(bytes, length, output_.data() + held_, output_.size() - held_, &produced);
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
    if (const LayerStatus status = Take(produced); status != LayerStatus::kOk) return status;
    if (state == Inflated::kNeedInput) return LayerStatus::kOk;
  }
}

// `produced` new bytes of tar stand in `output_` behind the held ones.
LayerStatus Layer::Take(size_t produced) {
  if (produced == 0) return LayerStatus::kOk;
  if (produced > max_tar_bytes_ - tar_bytes_) return LayerStatus::kTooLarge;
  tar_bytes_ += produced;
  if (tar_bytes_ > kRatioFree && tar_bytes_ / max_ratio_ > compressed_bytes_) return LayerStatus::kRatio;
  tar_hash_.Update(output_.data() + held_, produced);

  const size_t available = held_ + produced;
  const size_t blocks = available / TarScanner::kBlock;
  const size_t belonging = scanner_.Blocks(output_.data(), blocks);
  if (scanner_.failed()) return LayerStatus::kEntry;
  if (const LayerStatus status = Store(output_.data(), belonging * TarScanner::kBlock); status != LayerStatus::kOk) {
    return status;
  }
  held_ = available - blocks * TarScanner::kBlock;
  std::memmove(output_.data(), output_.data() + blocks * TarScanner::kBlock, held_);
  return LayerStatus::kOk;
}

LayerStatus Layer::Store(const uint8_t* bytes, size_t length) {
  if (length == 0) return LayerStatus::kOk;
  if (const int error = tar_.WriteAt(bytes, length, stored_bytes_)) return FileStatus(error);
  stored_bytes_ += length;
  return FileStatus(verity_.Update(bytes, length));
}

LayerStatus Layer::Finish(LayerResult* result) {
  if (cancelled_) return LayerStatus::kCancelled;
  if (!decompressor_->AtEnd()) return LayerStatus::kTruncated;
  result->diff_id = tar_hash_.Finish();
  result->compressed_digest = stored_ ? result->diff_id : compressed_hash_.Finish();
  result->compressed_bytes = compressed_bytes_;
  result->tar_bytes = tar_bytes_;
  const std::vector<uint8_t> rest = scanner_.Finish(held_);
  if (scanner_.failed()) return LayerStatus::kEntry;
  if (const LayerStatus status = Store(rest.data(), rest.size()); status != LayerStatus::kOk) return status;
  return FileStatus(verity_.Finish(tar_, &result->tree));
}

LayerStatus AppendVerity(const std::string& path, size_t data_block, const std::vector<uint8_t>& salt,
                         const std::atomic<bool>& cancelled, VerityTree* tree, int* error) {
  const auto status = [error](int number) {
    *error = number;
    return number == 0 ? LayerStatus::kOk : LayerStatus::kFile;
  };
  File file;
  VerityBuilder verity;
  uint64_t size = 0;
  if (const int number = file.OpenExisting(path)) return status(number);
  if (const int number = file.Size(&size)) return status(number);
  if (const int number = verity.Begin(path, data_block, salt)) return status(number);
  std::vector<uint8_t> buffer(kOutput);
  for (uint64_t done = 0; done < size;) {
    if (cancelled) return LayerStatus::kCancelled;
    const size_t length = static_cast<size_t>(std::min<uint64_t>(buffer.size(), size - done));
    if (const int number = file.ReadAt(buffer.data(), length, done)) return status(number);
    if (const int number = verity.Update(buffer.data(), length)) return status(number);
    done += length;
  }
  return status(verity.Finish(file, tree));
}

}  // namespace caisson
