#include "storage.h"

#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

namespace caisson {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr size_t kXtsKeyBytes = 64;

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) noexcept : fd_(::open(path.c_str(), flags | O_CLOEXEC)) {}
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

// Memory that held key material is wiped whatever way the function ends.
class WipedBytes {
 public:
  explicit WipedBytes(size_t bytes) : bytes_(bytes) {}
  ~WipedBytes() { ::explicit_bzero(bytes_.data(), bytes_.size()); }
  WipedBytes(const WipedBytes&) = delete;
  WipedBytes& operator=(const WipedBytes&) = delete;
  [[nodiscard]] char* data() noexcept { return bytes_.data(); }
  [[nodiscard]] size_t size() const noexcept { return bytes_.size(); }

 private:
  std::vector<char> bytes_;
};

// Writes the header of Documentation/admin-guide/device-mapper (struct dm_ioctl) for a request of `size` bytes.
dm_ioctl* Request(char* buffer, size_t size, const std::string& name, uint32_t flags) noexcept {
  auto* request = reinterpret_cast<dm_ioctl*>(buffer);
  request->version[0] = DM_VERSION_MAJOR;
  request->data_size = static_cast<uint32_t>(size);
  request->data_start = sizeof(dm_ioctl);
  request->flags = flags;
  std::memcpy(request->name, name.data(), name.size());
  return request;
}

int Control(int control, unsigned long command, const std::string& name, uint32_t flags, dm_ioctl& answer) noexcept {
  std::array<char, sizeof(dm_ioctl)> buffer{};
  dm_ioctl* request = Request(buffer.data(), buffer.size(), name, flags);
  if (::ioctl(control, command, request) != 0) return -errno;
  answer = *request;
  return 0;
}

int LoadTable(int control, const std::string& name, const std::string& target, const char* parameters,
              size_t parameters_bytes, uint64_t sectors, uint32_t flags) {
  const size_t spec = sizeof(dm_ioctl);
  const size_t text = spec + sizeof(dm_target_spec);
  WipedBytes buffer((text + parameters_bytes + 1 + 7) & ~size_t{7});
  // DM_SECURE_DATA_FLAG: the kernel wipes its own copy too.
  dm_ioctl* request = Request(buffer.data(), buffer.size(), name, flags | DM_SECURE_DATA_FLAG);
  request->target_count = 1;
  auto* target_spec = reinterpret_cast<dm_target_spec*>(buffer.data() + spec);
  target_spec->length = sectors;
  std::memcpy(target_spec->target_type, target.data(), target.size());
  std::memcpy(buffer.data() + text, parameters, parameters_bytes);
  return ::ioctl(control, DM_TABLE_LOAD, request) != 0 ? -errno : 0;
}

int Create(const std::string& name, const std::string& target, const char* parameters, size_t parameters_bytes,
           uint64_t sectors, bool read_only) {
  if (name.size() >= DM_NAME_LEN || target.size() >= DM_MAX_TYPE_NAME) return -ENAMETOOLONG;
  const Descriptor control("/dev/mapper/control", O_RDWR);
  if (!control.valid()) return -errno;
  const uint32_t flags = read_only ? DM_READONLY_FLAG : 0;
  dm_ioctl created{};
  int result = Control(control.get(), DM_DEV_CREATE, name, flags, created);
  if (result != 0) return result;
  result = LoadTable(control.get(), name, target, parameters, parameters_bytes, sectors, flags);
  dm_ioctl ignored{};
  // Without DM_SUSPEND_FLAG this resumes, which makes the loaded table live.
  if (result == 0) result = Control(control.get(), DM_DEV_SUSPEND, name, flags, ignored);
  if (result != 0) {
    (void)Control(control.get(), DM_DEV_REMOVE, name, 0, ignored);
    return result;
  }
  return static_cast<int>(minor(static_cast<dev_t>(created.dev)));
}

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
    config.block_size = kSectorBytes;
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

int CreateMapped(const std::string& name, const std::string& target, const std::string& parameters, uint64_t sectors,
                 bool read_only) noexcept {
  return Create(name, target, parameters.data(), parameters.size(), sectors, read_only);
}

int CreateEncrypted(const std::string& name, const std::string& device) noexcept {
  const int64_t bytes = BlockDeviceSize(device);
  if (bytes < 0) return static_cast<int>(bytes);
  std::array<unsigned char, kXtsKeyBytes> key{};
  if (::getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size())) return -EIO;
  WipedBytes parameters(2 * kXtsKeyBytes + device.size() + 96);
  int length = std::snprintf(parameters.data(), parameters.size(), "aes-xts-plain64 ");
  for (const unsigned char byte : key) {
    length += std::snprintf(parameters.data() + length, parameters.size() - static_cast<size_t>(length), "%02x", byte);
  }
  ::explicit_bzero(key.data(), key.size());
  length += std::snprintf(parameters.data() + length, parameters.size() - static_cast<size_t>(length),
                          " 0 %s 0 3 allow_discards no_read_workqueue no_write_workqueue", device.c_str());
  const auto sectors = static_cast<uint64_t>(bytes) / kSectorBytes;
  return Create(name, "crypt", parameters.data(), static_cast<size_t>(length), sectors, false);
}

int CreateCrypt(const std::string& name, const std::string& device, std::vector<uint8_t> key, uint64_t offset,
                uint64_t sectors, uint32_t sector_bytes) noexcept {
  if (key.size() != kXtsKeyBytes) {
    ::explicit_bzero(key.data(), key.size());
    return -EINVAL;
  }
  WipedBytes parameters(2 * kXtsKeyBytes + device.size() + 128);
  int length = std::snprintf(parameters.data(), parameters.size(), "aes-xts-plain64 ");
  for (const uint8_t byte : key) {
    length += std::snprintf(parameters.data() + length, parameters.size() - static_cast<size_t>(length), "%02x", byte);
  }
  ::explicit_bzero(key.data(), key.size());
  const char* large = sector_bytes == 4096 ? " sector_size:4096" : "";
  length += std::snprintf(parameters.data() + length, parameters.size() - static_cast<size_t>(length),
                          " 0 %s %llu %d no_read_workqueue no_write_workqueue%s", device.c_str(),
                          static_cast<unsigned long long>(offset), sector_bytes == 4096 ? 3 : 2, large);
  return Create(name, "crypt", parameters.data(), static_cast<size_t>(length), sectors, false);
}

int RemoveMapped(const std::string& name) noexcept {
  if (name.size() >= DM_NAME_LEN) return -ENAMETOOLONG;
  const Descriptor control("/dev/mapper/control", O_RDWR);
  if (!control.valid()) return -errno;
  dm_ioctl ignored{};
  // Somebody may still be letting go of it: then it goes when they are done.
  return Control(control.get(), DM_DEV_REMOVE, name, DM_DEFERRED_REMOVE, ignored);
}

int64_t BlockDeviceSize(const std::string& path) noexcept {
  const Descriptor device(path, O_RDONLY);
  if (!device.valid()) return -errno;
  uint64_t bytes = 0;
  return ::ioctl(device.get(), BLKGETSIZE64, &bytes) != 0 ? -errno : static_cast<int64_t>(bytes);
}

}  // namespace caisson
