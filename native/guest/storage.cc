#include "storage.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "descriptor.h"

namespace caisson {
namespace {

// O_PATH below `root`, as one step of the kernel's.
int OpenBelow(int root, const std::string& path) noexcept {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const auto fd = static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof(how)));
  return fd < 0 ? -errno : fd;
}

// Makes one directory in `parent`. One that is there already, or whatever else is, is judged by who opens it next.
int MakeBelow(int parent, const std::string& name, uint32_t mode, uint32_t gid) noexcept {
  if (::mkdirat(parent, name.c_str(), 0700) != 0) return errno == EEXIST ? 0 : -errno;
  const Descriptor made(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made.valid()) return -errno;
  if (::fchown(made.get(), 0, gid) != 0 || ::fchmod(made.get(), mode) != 0) return -errno;
  return 0;
}

int MakeAllBelow(int root, const std::string& path, uint32_t mode, uint32_t gid) {
  size_t start = 0;
  while (start <= path.size()) {
    const size_t end = std::min(path.find('/', start), path.size());
    const Descriptor parent(start == 0 ? OpenBelow(root, ".") : OpenBelow(root, path.substr(0, start)));
    if (!parent.valid()) return parent.get();
    // Where the whole of it exists, as a link for instance, nothing is made.
    const Descriptor there(OpenBelow(root, path.substr(0, end)));
    if (!there.valid()) {
      if (there.get() != -ENOENT) return there.get();
      const int result = MakeBelow(parent.get(), path.substr(start, end - start), mode, gid);
      if (result != 0) return result;
    }
    start = end + 1;
  }
  return 0;
}

// An empty file or directory to mount on.
int MakeTarget(const std::string& target, bool directory) noexcept {
  if (directory) return ::mkdir(target.c_str(), 0755) != 0 && errno != EEXIST ? -errno : 0;
  const Descriptor file(::open(target.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  return file.valid() ? 0 : -errno;
}

}  // namespace

int BindInRoot(const std::string& root, const std::string& path, const std::string& target, uint32_t mode,
               uint32_t gid) noexcept {
  const Descriptor base(root, O_PATH | O_DIRECTORY);
  if (!base.valid()) return -errno;
  if (mode != 0) {
    const int made = MakeAllBelow(base.get(), path, mode, gid);
    if (made != 0) return made;
  }
  const Descriptor found(OpenBelow(base.get(), path));
  if (!found.valid()) return found.get();
  struct stat status {};
  if (::fstat(found.get(), &status) != 0) return -errno;
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) return -EINVAL;
  const int made = MakeTarget(target, S_ISDIR(status.st_mode));
  if (made != 0) return made;
  // By the descriptor: the path may lead elsewhere by now.
  return Mount("/proc/self/fd/" + std::to_string(found.get()), target, "", MS_BIND, "");
}

int Mount(const std::string& source, const std::string& target, const std::string& type, uint64_t flags,
          const std::string& data) noexcept {
  const int result = ::mount(source.c_str(), target.c_str(), type.empty() ? nullptr : type.c_str(), flags,
                             data.empty() ? nullptr : data.c_str());
  return result != 0 ? -errno : 0;
}

int Unmount(const std::string& target, int flags) noexcept {
  return ::umount2(target.c_str(), flags) != 0 ? -errno : 0;
}

int AttachLoop(const std::string& file, bool read_only, bool direct_io) noexcept {
  const Descriptor backing(file, read_only ? O_RDONLY : O_RDWR);
  if (!backing.valid()) return -errno;
  const Descriptor control("/dev/loop-control", O_RDWR);
  if (!control.valid()) return -errno;
  // Another process may take the free device between the two calls: then LOOP_CONFIGURE says EBUSY and we ask again.
  for (int attempt = 0; attempt < 16; attempt++) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return -errno;
    const Descriptor loop("/dev/loop" + std::to_string(number), read_only ? O_RDONLY : O_RDWR);
    if (!loop.valid()) return -errno;
    loop_config config{};
    config.fd = static_cast<uint32_t>(backing.get());
    // Direct I/O wants the blocks of what lies below, which are those of scratch.
    config.block_size = direct_io ? kScratchBlock : kSectorBytes;
    config.info.lo_flags =
        (read_only ? uint32_t{LO_FLAGS_READ_ONLY} : 0U) | (direct_io ? uint32_t{LO_FLAGS_DIRECT_IO} : 0U);
    if (::ioctl(loop.get(), LOOP_CONFIGURE, &config) == 0) return number;
    if (errno != EBUSY) return -errno;
  }
  return -EBUSY;
}

int DetachLoop(const std::string& device) noexcept {
  const Descriptor loop(device, O_RDONLY);
  if (!loop.valid()) return -errno;
  return ::ioctl(loop.get(), LOOP_CLR_FD) != 0 ? -errno : 0;
}

int64_t BlockDeviceSize(const std::string& path) noexcept {
  const Descriptor device(path, O_RDONLY);
  if (!device.valid()) return -errno;
  uint64_t bytes = 0;
  return ::ioctl(device.get(), BLKGETSIZE64, &bytes) != 0 ? -errno : static_cast<int64_t>(bytes);
}

}  // namespace caisson
