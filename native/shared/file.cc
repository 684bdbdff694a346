#include "file.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace caisson {

File::~File() { Close(); }

void File::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

int File::Create(const std::string& path) {
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  return fd_ < 0 ? errno : 0;
}

int File::OpenExisting(const std::string& path) {
  fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  return fd_ < 0 ? errno : 0;
}

int File::OpenReadOnly(const std::string& path) {
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  return fd_ < 0 ? errno : 0;
}

int File::CreateAnonymous(const std::string& beside) {
  std::string name = beside + ".XXXXXX";
  fd_ = mkostemp(name.data(), O_CLOEXEC);
  if (fd_ < 0) return errno;
  return unlink(name.c_str()) < 0 ? errno : 0;
}

int File::WriteAt(const uint8_t* bytes, size_t length, uint64_t offset) {
  while (length > 0) {
    const ssize_t written = pwrite(fd_, bytes, length, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes += written;
    length -= static_cast<size_t>(written);
    offset += static_cast<uint64_t>(written);
  }
  return 0;
}

int File::ReadAt(uint8_t* bytes, size_t length, uint64_t offset) const {
  while (length > 0) {
    const ssize_t got = pread(fd_, bytes, length, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return EIO;  // shorter than it said it was
    bytes += got;
    length -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return 0;
}

int File::Size(uint64_t* bytes) const {
  struct stat status;
  if (fstat(fd_, &status) < 0) return errno;
  *bytes = static_cast<uint64_t>(status.st_size);
  return 0;
}

int File::Sync() { return fdatasync(fd_) < 0 ? errno : 0; }

}  // namespace caisson
