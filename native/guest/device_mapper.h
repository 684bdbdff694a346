// Devices of the kernel's device-mapper. Everything here may block on a disk: call it from a worker thread. Results are
// non-negative or -errno.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson {

// One target over the whole device. Number of the /dev/dm-<N>.
int CreateMapped(const std::string& name, const std::string& target, const std::string& parameters, uint64_t sectors,
                 bool read_only) noexcept;

// Over the whole of `device`, for as long as this kernel runs: dm-integrity, as room for a code per 4096 bytes, and on it
// dm-crypt, which encrypts and authenticates (aes-xts-plain64, HMAC-SHA256 over the ciphertext and the sector's number) with
// keys from getrandom(2) that are wiped here and never leave the kernel. Sectors that were never written cannot be read.
// Leaves two devices, `name` and `name`-codes. Number of the /dev/dm-<N> to use.
int CreateScratch(const std::string& name, const std::string& device) noexcept;

// dm-crypt aes-xts-plain64 over `sectors` of 512 bytes of `device` from `offset` on. Takes the key and wipes it.
int CreateCrypt(const std::string& name, const std::string& device, std::vector<uint8_t> key, uint64_t offset,
                uint64_t sectors, uint32_t sector_bytes) noexcept;

int RemoveMapped(const std::string& name) noexcept;

}  // namespace caisson
