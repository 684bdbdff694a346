#include "descriptors.h"

#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace caisson {
namespace {

int CloseWith(int fd, int error) noexcept {
  ::close(fd);
  return -error;
}

}  // namespace

int VsockListen(uint32_t port, int backlog) noexcept {
  const int fd = ::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = port;
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return CloseWith(fd, errno);
  if (::listen(fd, backlog) != 0) return CloseWith(fd, errno);
  return fd;
}

int UnixListen(const std::string& path) noexcept {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return -ENAMETOOLONG;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return CloseWith(fd, errno);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return CloseWith(fd, errno);
  if (::listen(fd, 1) != 0) return CloseWith(fd, errno);
  return fd;
}

int Accept(int fd) noexcept {
  const int accepted = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  return accepted < 0 ? -errno : accepted;
}

int ReceiveDescriptor(int fd) noexcept {
  char byte = 0;
  iovec vector{&byte, 1};
  // Room for exactly one: the kernel drops what does not fit and sets MSG_CTRUNC.
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  if (got < 0) return -errno;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return -EPROTO;
  }
  int received = -1;
  std::memcpy(&received, CMSG_DATA(header), sizeof(received));
  if ((message.msg_flags & MSG_CTRUNC) != 0) return CloseWith(received, EPROTO);
  const int nonblocking = SetNonBlocking(received);
  return nonblocking < 0 ? CloseWith(received, -nonblocking) : received;
}

int64_t Read(int fd, void* into, size_t bytes) noexcept {
  ssize_t got;
  do {
    got = ::read(fd, into, bytes);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EIO && ::isatty(fd) == 1) return 0;
  return got < 0 ? -errno : got;
}

int64_t Write(int fd, const void* from, size_t bytes) noexcept {
  ssize_t put;
  do {
    put = ::write(fd, from, bytes);
  } while (put < 0 && errno == EINTR);
  return put < 0 ? -errno : put;
}

int ShutdownWrite(int fd) noexcept { return ::shutdown(fd, SHUT_WR) != 0 ? -errno : 0; }

int SetNonBlocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  return ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ? -errno : 0;
}

int MakePipe(Pipe& pipe, bool nonblocking_read, bool nonblocking_write) noexcept {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return -errno;
  int result = nonblocking_read ? SetNonBlocking(ends[0]) : 0;
  if (result == 0 && nonblocking_write) result = SetNonBlocking(ends[1]);
  if (result != 0) {
    ::close(ends[0]);
    return CloseWith(ends[1], -result);
  }
  pipe = {ends[0], ends[1]};
  return 0;
}

int SetWindowSize(int fd, uint16_t columns, uint16_t rows) noexcept {
  winsize size{};
  size.ws_col = columns;
  size.ws_row = rows;
  return ::ioctl(fd, TIOCSWINSZ, &size) != 0 ? -errno : 0;
}

int OpenNull() noexcept {
  const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

int Close(int fd) noexcept { return ::close(fd) != 0 ? -errno : 0; }

}  // namespace caisson
