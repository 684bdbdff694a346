// Incremental decompression of one layer. Formats: none, gzip (RFC 1952, several members), zstd (RFC 8878, several
// frames, skippable frames, windows up to 128 MiB).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

namespace caisson {

enum class Inflated {
  kNeedInput,   // all input taken, nothing more to give
  kOutputFull,  // call again with a fresh output buffer
  kCorrupt,
  kWindowTooLarge,
  kNoMemory,
};

class Decompressor {
 public:
  virtual ~Decompressor() = default;

  // Moves `input` and `input_left` forward by what was consumed; writes `*produced` bytes to `output`.
  virtual Inflated Push(const uint8_t*& input, size_t& input_left, uint8_t* output, size_t capacity,
                        size_t* produced) = 0;

  // Whether the input may end here: after at least one member or frame, and not within another.
  virtual bool AtEnd() const = 0;
};

// Null for an unknown name. Names: "none", "gzip", "zstd".
std::unique_ptr<Decompressor> MakeDecompressor(std::string_view name);

}  // namespace caisson
