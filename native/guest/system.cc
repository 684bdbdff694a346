#include "system.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/reboot.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace caisson {
namespace {

// P_PIDFD of waitid(2); older C libraries lack the name.
constexpr auto kWaitPidfd = static_cast<idtype_t>(3);

int ReadAll(int fd, size_t max_bytes, std::vector<uint8_t>& content) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return -errno;
  if (!S_ISREG(status.st_mode)) return -EINVAL;
  if (static_cast<uint64_t>(status.st_size) > max_bytes) return -EFBIG;
  // One byte more than allowed tells a file that grew meanwhile.
  content.resize(max_bytes + 1);
  size_t filled = 0;
  while (filled < content.size()) {
    const ssize_t got = ::read(fd, content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  if (filled > max_bytes) return -EFBIG;
  content.resize(filled);
  return 0;
}

}  // namespace

int BecomeSubreaper() noexcept { return ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 ? -errno : 0; }

int OpenProcess(int pid) noexcept {
  const auto fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  return fd < 0 ? -errno : fd;
}

int TakeExit(int pidfd) noexcept {
  siginfo_t info{};
  int result;
  do {
    result = ::waitid(kWaitPidfd, static_cast<id_t>(pidfd), &info, WEXITED | WNOHANG);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return -errno;
  if (info.si_pid == 0) return -EAGAIN;
  return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

int SignalProcess(int pidfd, int signal) noexcept {
  return ::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) != 0 ? -errno : 0;
}

int ReadInRoot(const std::string& root, const std::string& path, size_t max_bytes, std::vector<uint8_t>& content) {
  const int directory = ::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -errno;
  open_how how{};
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const auto fd = static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof(how)));
  const int open_error = errno;
  ::close(directory);
  if (fd < 0) return -open_error;
  const int result = ReadAll(fd, max_bytes, content);
  ::close(fd);
  return result;
}

int SetHostname(const std::string& name) noexcept {
  return ::sethostname(name.data(), name.size()) != 0 ? -errno : 0;
}

int SetWallClock(int64_t milliseconds) noexcept {
  timeval time{};
  time.tv_sec = milliseconds / 1000;
  time.tv_usec = (milliseconds % 1000) * 1000;
  return ::settimeofday(&time, nullptr) != 0 ? -errno : 0;
}

int PowerOff() noexcept {
  ::sync();
  return ::reboot(LINUX_REBOOT_CMD_POWER_OFF) != 0 ? -errno : 0;
}

}  // namespace caisson
