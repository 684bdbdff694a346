/**
 * Which system calls a container may make. The guest's own filter holds for every container, whatever stands here: a rule
 * takes away from it and adds nothing.
 */
import type { PolicyNode } from './document.ts'

export type SeccompRule =
  /** The guest's own filter alone. */
  | { readonly kind: 'guest' }
  /** Without what containerd's default profile keeps from containers of these capabilities. */
  | { readonly kind: 'runtime-default' }
  /** These and no others. */
  | { readonly kind: 'allow'; readonly names: readonly string[] }
  /** All but these. */
  | { readonly kind: 'deny'; readonly names: readonly string[] }

export const GUEST_SECCOMP: SeccompRule = { kind: 'guest' }

/** `seccomp` of a container. Throws `MalformedError` ERR_POLICY_MALFORMED, also for a call that x86-64 does not have. */
export function readSeccomp(node: PolicyNode | undefined): SeccompRule {
  if (node === undefined) return GUEST_SECCOMP
  if (!node.isMapping()) return { kind: node.oneOf(['guest', 'runtime-default']) }
  const fields = node.fields(['allow', 'deny'])
  const [allow, deny] = [fields.get('allow'), fields.get('deny')]
  if ((allow === undefined) === (deny === undefined)) throw node.fail('must have either `allow` or `deny`')
  return allow === undefined
    ? { kind: 'deny', names: readNames(deny ?? node) }
    : { kind: 'allow', names: readNames(allow) }
}

/** A name that no kernel knows would silently deny nothing. */
function readNames(node: PolicyNode): readonly string[] {
  const items = node.items()
  if (items.length === 0) throw node.fail('must not be empty')
  if (items.length > SYSTEM_CALLS.size) throw node.fail(`has ${items.length} entries, at most ${SYSTEM_CALLS.size}`)
  return items.map((item) => {
    if (!SYSTEM_CALLS.has(item.string())) {
      throw item.fail('is not a system call of x86-64', 'Names are those of the kernel, such as openat or ptrace.')
    }
    return item.string()
  })
}

/** What of a container's calls this rule takes away, in words. */
export function describeSeccomp(rule: SeccompRule): string {
  if (rule.kind === 'guest') return 'what the guest’s own filter lets through'
  if (rule.kind === 'runtime-default') return 'what containerd’s default profile lets through'
  const names = [...new Set(rule.names)].sort().join(', ')
  return rule.kind === 'allow' ? `nothing but ${names}` : `all but ${names}`
}

/** Whether every call that `rule` lets through is let through by `wider` as well, as far as their words tell. */
export function seccompIncludes(wider: SeccompRule, rule: SeccompRule): boolean {
  if (wider.kind === 'guest') return true
  if (rule.kind === 'allow' && wider.kind === 'allow') return rule.names.every((name) => wider.names.includes(name))
  if (rule.kind === 'deny' && wider.kind === 'deny') return wider.names.every((name) => rule.names.includes(name))
  if (rule.kind === 'allow' && wider.kind === 'deny') return !rule.names.some((name) => wider.names.includes(name))
  return rule.kind === 'runtime-default' && wider.kind === 'runtime-default'
}

/** Of x86-64, as Linux 6.12 and the guest's libseccomp name them. */
export const SYSTEM_CALLS: ReadonlySet<string> = new Set(
  `
  _sysctl accept accept4 access acct add_key adjtimex afs_syscall alarm arch_prctl bind bpf brk cachestat capget
  capset chdir chmod chown chroot clock_adjtime clock_getres clock_gettime clock_nanosleep clock_settime clone
  clone3 close close_range connect copy_file_range creat create_module delete_module dup dup2 dup3 epoll_create
  epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
  execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_init fanotify_mark fchdir fchmod
  fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr finit_module flistxattr flock fork fremovexattr
  fsconfig fsetxattr fsmount fsopen fspick fstat fstatfs fsync ftruncate futex futex_requeue futex_wait
  futex_waitv futex_wake futimesat get_kernel_syms get_mempolicy get_robust_list get_thread_area getcpu getcwd
  getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getpmsg
  getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid
  gettimeofday getuid getxattr getxattrat init_module inotify_add_watch inotify_init inotify_init1
  inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit io_uring_enter
  io_uring_register io_uring_setup ioctl ioperm iopl ioprio_get ioprio_set kcmp kexec_file_load kexec_load keyctl
  kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen
  listmount listxattr listxattrat llistxattr lookup_dcookie lremovexattr lseek lsetxattr lsm_get_self_attr
  lsm_list_modules lsm_set_self_attr lstat madvise map_shadow_stack mbind membarrier memfd_create memfd_secret
  migrate_pages mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mount mount_setattr
  move_mount move_pages mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap
  mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
  nfsservctl open open_by_handle_at open_tree openat openat2 pause perf_event_open personality pidfd_getfd
  pidfd_open pidfd_send_signal pipe pipe2 pivot_root pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64
  preadv preadv2 prlimit64 process_madvise process_mrelease process_vm_readv process_vm_writev pselect6 ptrace
  putpmsg pwrite64 pwritev pwritev2 query_module quotactl quotactl_fd read readahead readlink readlinkat readv
  reboot recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
  request_key restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
  rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
  sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
  sched_setparam sched_setscheduler sched_yield seccomp security select semctl semget semop semtimedop sendfile
  sendmmsg sendmsg sendto set_mempolicy set_mempolicy_home_node set_robust_list set_thread_area set_tid_address
  setdomainname setfsgid setfsuid setgid setgroups sethostname setitimer setns setpgid setpriority setregid
  setresgid setresuid setreuid setrlimit setsid setsockopt settimeofday setuid setxattr setxattrat shmat shmctl
  shmdt shmget shutdown sigaltstack signalfd signalfd4 socket socketpair splice stat statfs statmount statx
  swapoff swapon symlink symlinkat sync sync_file_range syncfs sysfs sysinfo syslog tee tgkill time timer_create
  timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times
  tkill truncate tuxcall umask umount2 uname unlink unlinkat unshare uretprobe uselib userfaultfd ustat utime
  utimensat utimes vfork vhangup vmsplice vserver wait4 waitid write writev
`
    .trim()
    .split(/\s+/),
)
