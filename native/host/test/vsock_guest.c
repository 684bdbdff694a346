// PID 1 of the smallest guest that can speak vsock: servers for the tests of caisson-pod against a real kernel.
//
//   port  7  echoes until end of file
//   port  9  swallows until end of file, then answers with the number of bytes (8 bytes, little-endian)
//   port 11  says "bye", ends its direction, swallows the rest; `left` on the control port tells how much that was
//   port 19  reads a number of bytes (8 bytes, little-endian) and sends as many: byte i is (i * 7 + (i >> 8)) & 255
//   port 21  accepts and never reads
//   port 99  control: one line, one answer line of "ok N" or "errno N"
//              dial CID PORT COUNT   dials the host COUNT times; each stream echoes
//              left                  N is the byte count of port 11
//              off                   powers off
#include <errno.h>
#include <linux/vm_sockets.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kEchoPort = 7, kSinkPort = 9, kHalfClosePort = 11, kSourcePort = 19, kDeafPort = 21, kControlPort = 99 };

static uint64_t left_bytes;

typedef void (*Service)(int fd);

struct Work {
  Service service;
  int fd;
};

static void* RunService(void* argument) {
  struct Work work = *(struct Work*)argument;
  free(argument);
  work.service(work.fd);
  close(work.fd);
  return NULL;
}

static int InThread(Service service, int fd) {
  struct Work* work = malloc(sizeof *work);
  if (work == NULL) return -1;
  work->service = service;
  work->fd = fd;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  return pthread_create(&thread, &attributes, RunService, work);
}

static int SendAll(int fd, const uint8_t* bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    const ssize_t count = send(fd, bytes + done, length - done, MSG_NOSIGNAL);
    if (count <= 0) return -1;
    done += (size_t)count;
  }
  return 0;
}

static void Echo(int fd) {
  uint8_t buffer[32 * 1024];
  for (;;) {
    const ssize_t count = recv(fd, buffer, sizeof buffer, 0);
    if (count <= 0 || SendAll(fd, buffer, (size_t)count) != 0) return;
  }
}

static uint64_t Swallow(int fd) {
  uint8_t buffer[64 * 1024];
  uint64_t total = 0;
  for (;;) {
    const ssize_t count = recv(fd, buffer, sizeof buffer, 0);
    if (count <= 0) return total;
    total += (uint64_t)count;
  }
}

static void Sink(int fd) {
  const uint64_t total = Swallow(fd);
  SendAll(fd, (const uint8_t*)&total, sizeof total);
}

static void HalfClose(int fd) {
  SendAll(fd, (const uint8_t*)"bye", 3);
  shutdown(fd, SHUT_WR);
  __atomic_store_n(&left_bytes, Swallow(fd), __ATOMIC_SEQ_CST);
}

static void Source(int fd) {
  // The pattern repeats after 64 KiB, so one block serves for all.
  static uint8_t block[64 * 1024];
  for (size_t index = 0; index < sizeof block; ++index) block[index] = (uint8_t)(index * 7 + (index >> 8));
  uint64_t left = 0;
  if (recv(fd, &left, sizeof left, MSG_WAITALL) != sizeof left) return;
  while (left > 0) {
    const size_t length = left < sizeof block ? (size_t)left : sizeof block;
    if (SendAll(fd, block, length) != 0) return;
    left -= length;
  }
}

static void Deaf(int fd) {
  (void)fd;
  for (;;) pause();
}

static int Dial(unsigned cid, unsigned port) {
  const int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
  if (connect(fd, (const struct sockaddr*)&address, sizeof address) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

static void Control(int fd) {
  char line[64] = {0};
  for (size_t length = 0; length < sizeof line - 1 && recv(fd, line + length, 1, 0) == 1 && line[length] != '\n';) ++length;
  unsigned cid, port, count, done = 0;
  char answer[64];
  errno = 0;
  if (sscanf(line, "dial %u %u %u", &cid, &port, &count) == 3) {
    for (; done < count; ++done) {
      const int stream = Dial(cid, port);
      if (stream < 0) break;
      InThread(Echo, stream);
    }
    if (done < count) {
      snprintf(answer, sizeof answer, "errno %d\n", errno);
    } else {
      snprintf(answer, sizeof answer, "ok %u\n", done);
    }
  } else if (strncmp(line, "left", 4) == 0) {
    const unsigned long long bytes = __atomic_load_n(&left_bytes, __ATOMIC_SEQ_CST);
    snprintf(answer, sizeof answer, "ok %llu\n", bytes);
  } else if (strncmp(line, "off", 3) == 0) {
    reboot(RB_POWER_OFF);
    snprintf(answer, sizeof answer, "errno %d\n", errno);
  } else {
    snprintf(answer, sizeof answer, "errno %d\n", EINVAL);
  }
  SendAll(fd, (const uint8_t*)answer, strlen(answer));
}

struct Listener {
  Service service;
  unsigned port;
};

static void* Listen(void* argument) {
  const struct Listener* listener = argument;
  const int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = listener->port};
  if (fd < 0 || bind(fd, (const struct sockaddr*)&address, sizeof address) != 0 || listen(fd, 1024) != 0) {
    perror("vsock listener");
    return NULL;
  }
  for (;;) {
    const int stream = accept(fd, NULL, NULL);
    if (stream >= 0 && InThread(listener->service, stream) != 0) close(stream);
  }
}

int main(void) {
  static const struct Listener listeners[] = {
      {Echo, kEchoPort}, {Sink, kSinkPort}, {HalfClose, kHalfClosePort}, {Source, kSourcePort}, {Deaf, kDeafPort},
  };
  static const struct Listener control = {Control, kControlPort};
  for (size_t index = 0; index < sizeof listeners / sizeof listeners[0]; ++index) {
    pthread_t thread;
    pthread_create(&thread, NULL, Listen, (void*)(uintptr_t)&listeners[index]);
  }
  Listen((void*)(uintptr_t)&control);
  for (;;) pause();
}
