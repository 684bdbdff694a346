// Mutations that a tar survives: most bytes that change break a header's checksum and are seen no further.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace caisson::fuzz {

inline constexpr size_t kBlock = 512, kSum = 148, kUstar = 257;

inline void RepairChecksums(uint8_t* tar, size_t size) {
  for (size_t at = 0; at + kBlock <= size; at += kBlock) {
    uint8_t* header = tar + at;
    if (std::memcmp(header + kUstar, "ustar", 5) != 0) continue;
    std::memset(header + kSum, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < kBlock; i++) sum += header[i];
    char text[8];
    std::snprintf(text, sizeof text, "%06o", sum & 0777777);
    std::memcpy(header + kSum, text, 7);
  }
}

// Half of the time one field of one block, so that the blocks stay where they are; else anything.
inline size_t MutateTar(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  static constexpr struct {
    size_t at, length;
  } kFields[] = {{0, 100}, {124, 12}, {156, 1}, {157, 100}, {257, 8}, {329, 16}, {345, 155}, {0, 512}};
  if (seed % 2 == 0 && size >= kBlock) {
    const size_t block = (seed >> 4) % (size / kBlock) * kBlock;
    const auto& field = kFields[(seed >> 1) % 8];
    uint8_t bytes[kBlock];
    std::memcpy(bytes, data + block + field.at, field.length);
    const size_t length = LLVMFuzzerMutate(bytes, field.length, field.length);
    std::memcpy(data + block + field.at, bytes, length);
  } else {
    size = LLVMFuzzerMutate(data, size, max_size);
  }
  if (seed % 16 != 1) RepairChecksums(data, size);
  return size;
}

}  // namespace caisson::fuzz
