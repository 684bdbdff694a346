// Header blocks of a tar: fields in, fields out. What they mean for a layer is tar.cc's concern.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace caisson {

constexpr size_t kTarBlock = 512;

// Offsets in a ustar header (POSIX.1-2017, pax, "ustar Interchange Format").
constexpr size_t kName = 0, kMode = 100, kUid = 108, kGid = 116, kSize = 124, kMtime = 136, kChecksum = 148, kType = 156;
constexpr size_t kLink = 157, kMagic = 257;
constexpr size_t kMajor = 329, kMinor = 337, kPrefix = 345;

bool AllZero(const uint8_t* block);

// A field that ends at NUL or at its length.
std::string Text(const uint8_t* block, size_t at, size_t length);

// Octal digits between spaces and NULs, or base-256 when the high bit of the first byte is set (GNU).
bool Number(const uint8_t* block, size_t at, size_t length, uint64_t* value);

// The same with a sign, which base-256 may have.
bool SignedNumber(const uint8_t* block, size_t at, size_t length, int64_t* value);

bool ChecksumHolds(const uint8_t* block);

uint64_t BlocksOf(uint64_t bytes);

}  // namespace caisson
