// confined-probe WHAT: confines itself as caisson-index does and then tries what a taken-over indexer would. Prints the
// error that it got, or 0.
#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../indexer/confine.h"

namespace {

int Try(std::string_view what, int file) {
  const auto failed = [](bool is) { return is ? errno : 0; };
  if (what == "socket") return failed(socket(AF_INET, SOCK_STREAM, 0) < 0);
  if (what == "read") return failed(open("/etc/passwd", O_RDONLY) < 0);
  if (what == "create") return failed(open("/tmp/caisson-confined-probe", O_WRONLY | O_CREAT, 0600) < 0);
  if (what == "kill") return failed(kill(getppid(), 0) < 0);
  if (what == "exec") return failed(execl("/bin/true", "true", nullptr) < 0);
  if (what == "fork") return failed(fork() < 0);
  if (what == "memory") {
    return failed(mmap(nullptr, 1 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
  }
  if (what == "file") {
    static char zeros[1 << 20];
    for (int i = 0; i < 16; i++) {
      if (write(file, zeros, sizeof zeros) < 0) return errno;
    }
    return 0;
  }
  if (what == "time") {
    for (;;) [[maybe_unused]] const pid_t pid = getpid();
  }
  return -1;
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc != 3) return 2;
  const int file = open(argv[2], O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (file < 0) caisson::Fail(argv[2]);
  caisson::Confine({1, 256, 8});
  const int error = Try(argv[1], file);
  std::printf("%s\n", error == 0 ? "0" : strerrorname_np(error));
  std::fflush(stdout);
  return 0;
}
