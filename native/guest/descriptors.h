// Descriptors that Node cannot make or take over: AF_VSOCK, pipes with raw ends, pseudo-terminals passed over a Unix
// socket. Every function returns a non-negative result or -errno, blocks never, and every new descriptor is close-on-exec
// and owned by the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace caisson {

// Non-blocking listener on any CID; see vsock(7).
int VsockListen(uint32_t port, int backlog) noexcept;

// Non-blocking listener; an existing file at `path` is replaced.
int UnixListen(const std::string& path) noexcept;

// -EAGAIN when nobody waits. The new descriptor does not block.
int Accept(int fd) noexcept;

// One descriptor sent with SCM_RIGHTS; a message without exactly one is -EPROTO.
int ReceiveDescriptor(int fd) noexcept;

// read(2); a pseudo-terminal whose other side is closed (EIO) is at its end.
int64_t Read(int fd, void* into, size_t bytes) noexcept;
int64_t Write(int fd, const void* from, size_t bytes) noexcept;
int ShutdownWrite(int fd) noexcept;

struct Pipe {
  int read_end;
  int write_end;
};

// O_NONBLOCK on one end only: the other goes to a process that expects blocking reads or writes.
int MakePipe(Pipe& pipe, bool nonblocking_read, bool nonblocking_write) noexcept;
int SetNonBlocking(int fd) noexcept;
int SetWindowSize(int fd, uint16_t columns, uint16_t rows) noexcept;
int OpenNull() noexcept;
int Close(int fd) noexcept;

}  // namespace caisson
