#include "tar-header.h"

#include <algorithm>
#include <cstring>

namespace caisson {

bool AllZero(const uint8_t* block) {
  return std::all_of(block, block + kTarBlock, [](uint8_t byte) { return byte == 0; });
}

std::string Text(const uint8_t* block, size_t at, size_t length) {
  const auto* start = reinterpret_cast<const char*>(block + at);
  return std::string(start, strnlen(start, length));
}

bool Number(const uint8_t* block, size_t at, size_t length, uint64_t* value) {
  *value = 0;
  const uint8_t* field = block + at;
  if (field[0] & 0x80) {
    if (field[0] != 0x80) return false;  // negative, or beyond any size
    for (size_t i = 1; i < length; i++) {
      if (*value >> 55) return false;
      *value = *value << 8 | field[i];
    }
    return true;
  }
  size_t i = 0;
  while (i < length && (field[i] == ' ' || field[i] == 0)) i++;
  for (; i < length && field[i] >= '0' && field[i] <= '7'; i++) *value = *value * 8 + (field[i] - '0');
  for (; i < length; i++) {
    if (field[i] != ' ' && field[i] != 0) return false;
  }
  return true;
}

bool SignedNumber(const uint8_t* block, size_t at, size_t length, int64_t* value) {
  const uint8_t* field = block + at;
  if (field[0] != 0xff) {
    uint64_t positive;
    if (!Number(block, at, length, &positive) || positive > uint64_t{1} << 62) return false;
    *value = static_cast<int64_t>(positive);
    return true;
  }
  // Two's complement over the whole field: what is left of 63 bits must be ones.
  uint64_t bits = ~uint64_t{0};
  for (size_t i = 1; i < length; i++) {
    if ((bits >> 54) != 0x3ff) return false;
    bits = bits << 8 | field[i];
  }
  *value = static_cast<int64_t>(bits);
  return true;
}

bool ChecksumHolds(const uint8_t* block) {
  uint64_t expected;
  if (!Number(block, kChecksum, 8, &expected)) return false;
  uint64_t sum = 0;
  for (size_t i = 0; i < kTarBlock; i++) {
    sum += i >= kChecksum && i < kChecksum + 8 ? ' ' : block[i];
  }
  return sum == expected;
}

uint64_t BlocksOf(uint64_t bytes) { return (bytes + kTarBlock - 1) / kTarBlock; }

}  // namespace caisson
