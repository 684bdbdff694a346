#include "tar-header.h"

#include <algorithm>
#include <cstdio>
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
  while (i < length && field[i] == ' ') i++;
  for (; i < length && field[i] >= '0' && field[i] <= '7'; i++) *value = *value * 8 + (field[i] - '0');
  for (; i < length; i++) {
    if (field[i] != ' ' && field[i] != 0) return false;
  }
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

namespace {

void AppendHeader(std::vector<uint8_t>* out, std::string_view name, char type, unsigned mode, size_t size) {
  const size_t at = out->size();
  out->resize(at + kTarBlock, 0);
  char* block = reinterpret_cast<char*>(out->data() + at);
  std::memcpy(block, name.data(), std::min<size_t>(name.size(), 100));
  std::snprintf(block + 100, 8, "%07o", mode & 07777);
  std::snprintf(block + 108, 8, "%07o", 0);
  std::snprintf(block + 116, 8, "%07o", 0);
  std::snprintf(block + kSize, 12, "%011zo", size);
  std::snprintf(block + 136, 12, "%011o", 0);
  block[kType] = type;
  std::memcpy(block + kMagic, "ustar  ", 8);
  std::memset(block + kChecksum, ' ', 8);
  unsigned sum = 0;
  for (size_t i = 0; i < kTarBlock; i++) sum += static_cast<uint8_t>(block[i]);
  std::snprintf(block + kChecksum, 8, "%06o", sum & 0777777);
}

}  // namespace

void AppendDirectory(std::vector<uint8_t>* out, const std::string& path) {
  const std::string name = path + "/";
  if (name.size() > 100) {
    // GNU's long name: the next entry's name as content, NUL included.
    AppendHeader(out, "././@LongLink", 'L', 0644, name.size() + 1);
    const size_t at = out->size();
    out->resize(at + BlocksOf(name.size() + 1) * kTarBlock, 0);
    std::memcpy(out->data() + at, name.data(), name.size());
  }
  AppendHeader(out, name, '5', 0755, 0);
}

}  // namespace caisson
