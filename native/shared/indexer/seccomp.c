#include "seccomp.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

// execve is here for the one that starts the indexer. A second one gains nothing: the filter, the identity and the
// limits stay.
static const uint16_t ALLOWED[] = {
    SYS_read,          SYS_write,         SYS_pread64,        SYS_pwrite64,      SYS_readv,       SYS_writev,
    SYS_lseek,         SYS_open,          SYS_openat,         SYS_close,         SYS_fstat,       SYS_stat,
    SYS_lstat,         SYS_newfstatat,    SYS_statx,          SYS_statfs,        SYS_fstatfs,     SYS_access,
    SYS_faccessat2,    SYS_readlink,      SYS_readlinkat,     SYS_getcwd,        SYS_fcntl,       SYS_dup,
    SYS_dup2,          SYS_dup3,          SYS_ftruncate,      SYS_fallocate,     SYS_fsync,       SYS_fdatasync,
    SYS_fadvise64,     SYS_copy_file_range, SYS_sendfile,     SYS_ioctl,         SYS_unlink,      SYS_mmap,
    SYS_mprotect,      SYS_munmap,        SYS_mremap,         SYS_madvise,       SYS_brk,         SYS_futex,
    SYS_clone,         SYS_clone3,        SYS_set_robust_list, SYS_set_tid_address, SYS_rseq,     SYS_arch_prctl,
    SYS_prlimit64,     SYS_getrlimit,     SYS_sched_getaffinity, SYS_sched_yield, SYS_getrandom,  SYS_gettimeofday,
    SYS_clock_gettime, SYS_clock_nanosleep, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack,
    SYS_tgkill,        SYS_gettid,        SYS_getpid,         SYS_getppid,       SYS_getuid,      SYS_geteuid,
    SYS_getgid,        SYS_getegid,       SYS_uname,          SYS_sysinfo,       SYS_umask,       SYS_execve,
    SYS_exit,          SYS_exit_group,    SYS_restart_syscall,
};

enum { COUNT = sizeof ALLOWED / sizeof ALLOWED[0] };

int restrict_system_calls(void) {
  static struct sock_filter filter[COUNT + 7];
  unsigned short n = 0;
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
  filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (unsigned i = 0; i < COUNT; i++) {
    // Jumps to the last instruction, "allow". Numbers with the x32 bit are above all of these and match none.
    const unsigned char distance = (unsigned char)(COUNT - i);
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ALLOWED[i], distance, 0);
  }
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const struct sock_fprog program = {n, filter};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}
