// Header blocks of a tar: fields in, fields out. What they mean for a layer is tar.cc's concern.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace caisson {

constexpr size_t kTarBlock = 512;

// Offsets in a ustar header (POSIX.1-2017, pax, "ustar Interchange Format").
constexpr size_t kName = 0, kSize = 124, kChecksum = 148, kType = 156, kLink = 157, kMagic = 257;
constexpr size_t kMajor = 329, kMinor = 337, kPrefix = 345;

bool AllZero(const uint8_t* block);

// A field that ends at NUL or at its length.
std::string Text(const uint8_t* block, size_t at, size_t length);

// Octal digits between spaces and NULs, or base-256 when the high bit of the first byte is set (GNU).
bool Number(const uint8_t* block, size_t at, size_t length, uint64_t* value);

bool ChecksumHolds(const uint8_t* block);

uint64_t BlocksOf(uint64_t bytes);

// An entry for a directory of root's with mode 0755 and no time.
void AppendDirectory(std::vector<uint8_t>* out, const std::string& path);

}  // namespace caisson
