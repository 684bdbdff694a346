// caisson-index: runs the indexer of untrusted tars (mkfs.erofs) where it can do no harm.
//
//     caisson-index TAR INDEX SECONDS MEMORY_MIB INDEX_MIB -- MKFS [ARGUMENT...]
//
// Opens TAR for reading and creates INDEX (which must not exist), then runs MKFS with TAR as standard input and INDEX's
// descriptor path as last argument: as nobody, without privileges, network, other files to write, or new programs, with
// bounded processor time, memory, file size, and SECONDS of wall-clock time. The exit status is that of MKFS, 124 when
// time ran out, 125 when the confinement could not be set up, 128 + signal when it was killed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "seccomp.h"

enum { EXIT_TIMEOUT = 124, EXIT_SETUP = 125, NOBODY = 65534, INDEX_FD = 3, MAX_ARGUMENTS = 32 };

// The last thing on standard error when this program itself fails; the caller shows it.
__attribute__((noreturn)) static void fail(const char *what) {
  fprintf(stderr, "caisson-index: %s: %s\n", what, strerror(errno));
  _exit(EXIT_SETUP);
}

static uint64_t number(const char *text, uint64_t max) {
  char *end;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value == 0 || value > max) {
    errno = EINVAL;
    fail(text);
  }
  return value;
}

static void limit(int resource, uint64_t value) {
  const struct rlimit both = {value, value};
  if (setrlimit(resource, &both) < 0) fail("setrlimit");
}

// The child's side: from here on everything is given up, and the last step is to become MKFS.
__attribute__((noreturn)) static void confine(int tar, int index, char *const limits[], char *const command[]) {
  const uint64_t seconds = number(limits[0], 86400);
  const uint64_t memory_mib = number(limits[1], 1 << 20);
  const uint64_t index_mib = number(limits[2], 1 << 20);
  const bool root = geteuid() == 0;

  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) fail("PR_SET_PDEATHSIG");
  if (dup2(tar, STDIN_FILENO) < 0 || dup2(index, INDEX_FD) < 0) fail("dup2");
  if (close_range(INDEX_FD + 1, ~0U, 0) < 0) fail("close_range");

  // A network namespace of its own has no way out. Without root that needs a user namespace, which a machine may forbid;
  // the system call filter denies sockets in any case.
  if (root ? unshare(CLONE_NEWNET | CLONE_NEWIPC) < 0 : unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) < 0) {
    if (root) fail("unshare");
  }
  limit(RLIMIT_CPU, seconds);
  limit(RLIMIT_AS, memory_mib << 20);
  limit(RLIMIT_FSIZE, index_mib << 20);
  limit(RLIMIT_NOFILE, 32);
  limit(RLIMIT_CORE, 0);
  if (root) {
    if (fchown(INDEX_FD, NOBODY, NOBODY) < 0) fail("fchown");
    if (setgroups(0, NULL) < 0) fail("setgroups");
    if (setresgid(NOBODY, NOBODY, NOBODY) < 0) fail("setresgid");
    if (setresuid(NOBODY, NOBODY, NOBODY) < 0) fail("setresuid");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail("PR_SET_NO_NEW_PRIVS");
  if (restrict_system_calls() < 0) fail("seccomp");

  char *const environment[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", "TMPDIR=/tmp", NULL};
  execve(command[0], command, environment);
  fail(command[0]);
}

// Waits for the child or the deadline. Returns the exit status for this program.
static int supervise(pid_t child, uint64_t seconds) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  const struct timespec deadline = {(time_t)seconds, 0};
  const int got = sigtimedwait(&set, NULL, &deadline);
  if (got != SIGCHLD) kill(child, SIGKILL);
  int status;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) fail("waitpid");
  }
  if (got < 0) return EXIT_TIMEOUT;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char *argv[]) {
  if (argc < 8 || argc > 8 + MAX_ARGUMENTS || strcmp(argv[6], "--") != 0) {
    fprintf(stderr, "usage: caisson-index TAR INDEX SECONDS MEMORY_MIB INDEX_MIB -- MKFS [ARGUMENT...]\n");
    return EXIT_SETUP;
  }
  const uint64_t seconds = number(argv[3], 86400);
  const int tar = open(argv[1], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (tar < 0) fail(argv[1]);
  const int index = open(argv[2], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (index < 0) fail(argv[2]);

  char *command[MAX_ARGUMENTS + 3];
  int count = 0;
  for (int i = 7; i < argc; i++) command[count++] = argv[i];
  command[count++] = "/proc/self/fd/3";
  command[count] = NULL;

  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, &before);
  if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0) fail("PR_SET_PDEATHSIG");
  const pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    sigprocmask(SIG_SETMASK, &before, NULL);
    confine(tar, index, argv + 3, command);
  }
  const int status = supervise(child, seconds);
  // Nobody's no longer: whoever else runs as nobody must not change it.
  if (geteuid() == 0 && fchown(index, 0, 0) < 0) fail("fchown");
  return status;
}
