#include "decompressor.h"

#include "decompressor-isal.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

namespace caisson {

namespace {

class Stored final : public Decompressor {
 public:
  Inflated Push(const uint8_t*& input, size_t& input_left, uint8_t* output, size_t capacity,
                size_t* produced) override {
    const size_t length = std::min(input_left, capacity);
    std::memcpy(output, input, length);
    input += length;
    input_left -= length;
    *produced = length;
    return input_left > 0 ? Inflated::kOutputFull : Inflated::kNeedInput;
  }

  bool AtEnd() const override { return true; }
};

class Gzip final : public Decompressor {
 public:
  Gzip() { ready_ = inflateInit2(&stream_, kGzipOnly) == Z_OK; }
  ~Gzip() override {
    if (ready_) inflateEnd(&stream_);
  }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;

  Inflated Push(const uint8_t*& input, size_t& input_left, uint8_t* output, size_t capacity,
                size_t* produced) override {
    *produced = 0;
    if (!ready_) return Inflated::kNoMemory;
    stream_.next_out = output;
    stream_.avail_out = static_cast<uInt>(capacity);
    Inflated result = Inflated::kNeedInput;
    for (;;) {
      if (stream_.avail_out == 0) {
        result = Inflated::kOutputFull;
        break;
      }
      if (input_left == 0 && !has_pending_) break;
      if (input_left > 0) within_member_ = true;
      stream_.next_in = const_cast<Bytef*>(input);
      stream_.avail_in = static_cast<uInt>(std::min<size_t>(input_left, kMaxStep));
      const size_t offered = stream_.avail_in;
      const int status = inflate(&stream_, Z_NO_FLUSH);
      input += offered - stream_.avail_in;
      input_left -= offered - stream_.avail_in;
      // inflate may hold decoded bytes back for want of room: then it is called again without input.
      has_pending_ = status == Z_OK && stream_.avail_out == 0;
      if (status == Z_STREAM_END) {
        // RFC 1952 2.2: members follow one another; whatever follows and is no member is an error in inflate.
        within_member_ = false;
        members_seen_ = true;
        if (inflateReset(&stream_) != Z_OK) return Inflated::kNoMemory;
        continue;
      }
      if (status == Z_BUF_ERROR) {
        has_pending_ = false;
        continue;
      }
      if (status == Z_MEM_ERROR) return Inflated::kNoMemory;
      if (status != Z_OK) return Inflated::kCorrupt;
    }
    *produced = capacity - stream_.avail_out;
    return result;
  }

  bool AtEnd() const override { return members_seen_ && !within_member_; }

 private:
  static constexpr int kGzipOnly = 15 + 16;
  static constexpr size_t kMaxStep = 1 << 30;

  z_stream stream_{};
  bool ready_ = false;
  bool within_member_ = false;
  bool members_seen_ = false;
  bool has_pending_ = false;
};

class Zstd final : public Decompressor {
 public:
  Zstd() : context_(ZSTD_createDCtx()) {
    if (context_ != nullptr) ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, kMaxWindowLog);
  }
  ~Zstd() override { ZSTD_freeDCtx(context_); }
  Zstd(const Zstd&) = delete;
  Zstd& operator=(const Zstd&) = delete;

  Inflated Push(const uint8_t*& input, size_t& input_left, uint8_t* output, size_t capacity,
                size_t* produced) override {
    *produced = 0;
    if (context_ == nullptr) return Inflated::kNoMemory;
    ZSTD_outBuffer out{output, capacity, 0};
    Inflated result = Inflated::kNeedInput;
    while (input_left > 0 || (!at_frame_end_ && flushing_)) {
      ZSTD_inBuffer in{input, input_left, 0};
      const size_t before = out.pos;
      const size_t status = ZSTD_decompressStream(context_, &out, &in);
      KeepHeader(input, in.pos);
      frame_bytes_ += out.pos - before;
      input += in.pos;
      input_left -= in.pos;
      if (ZSTD_isError(status)) {
        const auto code = ZSTD_getErrorCode(status);
        if (code == ZSTD_error_frameParameter_windowTooLarge) return Inflated::kWindowTooLarge;
        return code == ZSTD_error_memory_allocation ? Inflated::kNoMemory : Inflated::kCorrupt;
      }
      frames_seen_ = true;
      at_frame_end_ = status == 0;
      if (at_frame_end_ && !EndFrame()) return Inflated::kCorrupt;
      flushing_ = !at_frame_end_ && out.pos == out.size;
      if (out.pos == out.size) {
        result = input_left > 0 || flushing_ ? Inflated::kOutputFull : Inflated::kNeedInput;
        break;
      }
      if (in.pos == 0 && out.pos == before && input_left > 0) return Inflated::kCorrupt;  // no progress
    }
    *produced = out.pos;
    return result;
  }

  bool AtEnd() const override { return frames_seen_ && at_frame_end_; }

 private:
  // A frame is as long as its header says (RFC 8878 3.1.1.1.4). libzstd overlooks it when the last block is empty, unless
  // the frame arrives in one piece: then the verdict would depend on how bytes arrive.
  bool EndFrame() {
    const unsigned long long said = ZSTD_getFrameContentSize(header_.data(), header_bytes_);
    const bool holds = said == ZSTD_CONTENTSIZE_UNKNOWN || said == frame_bytes_;
    header_bytes_ = 0;
    frame_bytes_ = 0;
    return holds;
  }

  void KeepHeader(const uint8_t* bytes, size_t length) {
    const size_t kept = std::min(length, header_.size() - header_bytes_);
    std::copy_n(bytes, kept, header_.begin() + static_cast<ptrdiff_t>(header_bytes_));
    header_bytes_ += kept;
  }

  // ZSTD_FRAMEHEADERSIZE_MAX, which only the static library's header section names.
  static constexpr size_t kMaxHeader = 18;
  // 128 MiB, what `zstd --long` writes; RFC 8878 3.1.1.1.2 leaves the limit to the decoder.
  static constexpr int kMaxWindowLog = 27;

  ZSTD_DCtx* context_;
  std::array<uint8_t, kMaxHeader> header_;
  size_t header_bytes_ = 0;
  uint64_t frame_bytes_ = 0;
  bool frames_seen_ = false;
  bool at_frame_end_ = false;
  bool flushing_ = false;
};

}  // namespace

std::unique_ptr<Decompressor> MakeDecompressor(std::string_view name) {
  if (name == "none") return std::unique_ptr<Decompressor>(new (std::nothrow) Stored);
  if (name == "gzip") {
    if (auto fast = MakeIsalDecompressor()) return fast;
  }
  if (name == "gzip") return std::unique_ptr<Decompressor>(new (std::nothrow) Gzip);
  if (name == "zstd") return std::unique_ptr<Decompressor>(new (std::nothrow) Zstd);
  return nullptr;
}

}  // namespace caisson
