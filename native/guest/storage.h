// Mounts, loop devices and device-mapper. Everything here may block on a disk: call it from a worker thread. Results are
// non-negative or -errno.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caisson {

// `flags` are MS_* of mount(2).
int Mount(const std::string& source, const std::string& target, const std::string& type, uint64_t flags,
          const std::string& data) noexcept;
int Unmount(const std::string& target, int flags) noexcept;

// Makes the file or directory `path` below `root` appear at `target`, which is made. Links resolve inside `root`, whoever
// changes them meanwhile. A `mode` other than 0 is that of directories which are missing and are made, owned by `gid`.
int BindInRoot(const std::string& root, const std::string& path, const std::string& target, uint32_t mode,
               uint32_t gid) noexcept;

// Number of the /dev/loop<N> that now shows `file`, 512-byte sectors.
int AttachLoop(const std::string& file, bool read_only, bool direct_io) noexcept;
int DetachLoop(const std::string& device) noexcept;

// One target over the whole device. Number of the /dev/dm-<N>.
int CreateMapped(const std::string& name, const std::string& target, const std::string& parameters, uint64_t sectors,
                 bool read_only) noexcept;

// dm-crypt over the whole of `device` with a key from getrandom(2) that is wiped here and never leaves the kernel.
int CreateEncrypted(const std::string& name, const std::string& device) noexcept;
// dm-crypt aes-xts-plain64 over `sectors` of 512 bytes of `device` from `offset` on. Takes the key and wipes it.
int CreateCrypt(const std::string& name, const std::string& device, std::vector<uint8_t> key, uint64_t offset,
                uint64_t sectors, uint32_t sector_bytes) noexcept;
int RemoveMapped(const std::string& name) noexcept;

// Bytes.
int64_t BlockDeviceSize(const std::string& path) noexcept;

}  // namespace caisson
