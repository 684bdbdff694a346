// Mounts and loop devices. Everything here may block on a disk: call it from a worker thread. Results are
// non-negative or -errno.
#pragma once

#include <cstdint>
#include <string>

namespace caisson {

// In which the kernel counts the length of a block device.
inline constexpr uint32_t kSectorBytes = 512;
// What is encrypted and authenticated together on scratch; whatever lies on it goes by blocks of this size.
inline constexpr uint32_t kScratchBlock = 4096;

// `flags` are MS_* of mount(2).
int Mount(const std::string& source, const std::string& target, const std::string& type, uint64_t flags,
          const std::string& data) noexcept;
int Unmount(const std::string& target, int flags) noexcept;

// Makes the file or directory `path` below `root` appear at `target`, which is made. Links resolve inside `root`, whoever
// changes them meanwhile. A `mode` other than 0 is that of directories which are missing and are made, owned by `gid`.
int BindInRoot(const std::string& root, const std::string& path, const std::string& target, uint32_t mode,
               uint32_t gid) noexcept;

// Number of the /dev/loop<N> that now shows `file`, in sectors of 512 bytes, or of 4096 with direct I/O.
int AttachLoop(const std::string& file, bool read_only, bool direct_io) noexcept;
int DetachLoop(const std::string& device) noexcept;

// Bytes.
int64_t BlockDeviceSize(const std::string& path) noexcept;

}  // namespace caisson
