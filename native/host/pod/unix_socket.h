// Non-blocking Unix stream sockets, close-on-exec.
#pragma once

#include <string>

#include "unique_fd.h"

namespace caisson::pod {

// A listening socket of mode 0600 whose file goes when this object goes.
class UnixListener {
 public:
  UnixListener() = default;
  ~UnixListener() { Close(); }
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;

  // A socket file left behind by a dead process is replaced; a live one, or anything else, is an error.
  // Returns 0 or -errno.
  int Listen(const std::string& path, int backlog);
  // A new connection, or nothing. When descriptors run out the connection is closed rather than left to wake us again.
  UniqueFd Accept();
  void Close();
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  UniqueFd spare_;
  std::string path_;
};

// Connects without waiting; nothing when nobody listens or the backlog is full.
UniqueFd ConnectUnix(const std::string& path);

}  // namespace caisson::pod
