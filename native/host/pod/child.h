// The VMM as a child that cannot outlive this process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace caisson::pod {

class Child {
 public:
  Child() = default;
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Starts `command` (looked up in PATH) in a process group of its own, with standard input from /dev/null and output
  // appended to `log_path`. The kernel kills it when this process dies. Returns 0 or -errno.
  int Start(const std::vector<std::string>& command, const std::string& log_path);
  void Terminate();
  void Kill();
  // True when it has ended; `status` then is as from waitpid(2), and what was left of its process group was killed.
  bool Reap(int& status);

  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

}  // namespace caisson::pod
