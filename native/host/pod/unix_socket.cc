#include "unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace caisson::pod {
namespace {

bool Address(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return true;
}

UniqueFd Socket() { return UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); }

bool IsDeadSocket(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode) && !ConnectUnix(path) && errno == ECONNREFUSED;
}

}  // namespace

int UnixListener::Listen(const std::string& path, int backlog) {
  sockaddr_un address;
  if (!Address(path, address)) return -ENAMETOOLONG;
  if (IsDeadSocket(path)) unlink(path.c_str());
  UniqueFd fd = Socket();
  if (!fd) return -errno;
  const mode_t old_mask = umask(0177);
  const int bound = bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int bind_error = errno;
  umask(old_mask);
  if (bound != 0) return -bind_error;
  path_ = path;
  if (listen(fd.get(), backlog) != 0) return -errno;
  fd_ = std::move(fd);
  spare_.Reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  return 0;
}

UniqueFd UnixListener::Accept() {
  UniqueFd fd(accept4(fd_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd && (errno == EMFILE || errno == ENFILE)) {
    spare_.Reset();
    UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)).Reset();
    spare_.Reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  return fd;
}

void UnixListener::Close() {
  fd_.Reset();
  if (!path_.empty()) unlink(path_.c_str());
  path_.clear();
}

UniqueFd ConnectUnix(const std::string& path) {
  sockaddr_un address;
  if (!Address(path, address)) {
    errno = ENAMETOOLONG;
    return UniqueFd();
  }
  UniqueFd fd = Socket();
  if (!fd || connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const int error = errno;
  fd.Reset();
  errno = error;  // close() may overwrite it
  return fd;
}

}  // namespace caisson::pod
