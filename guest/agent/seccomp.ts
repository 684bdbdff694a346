/**
 * System calls that no container gets: what changes the kernel, the clock or the guest's own mounts, escapes namespaces,
 * or talks past the agent to the host. A list of denials, because the guest is the container's own machine and the kernel
 * is the tenant's; what a capability of the policy opens is opened.
 */
interface Rule {
  readonly names: readonly string[]
  readonly action: 'SCMP_ACT_ERRNO'
  readonly errnoRet: number
  readonly args?: readonly {
    readonly index: number
    readonly value: number
    readonly valueTwo?: number
    readonly op: string
  }[]
}

const EPERM = 1
const ENOSYS = 38
const EAFNOSUPPORT = 97
const AF_ALG = 38
const AF_VSOCK = 40
const INT_BITS = 0xffffffff

const ALWAYS = [
  'acct',
  'add_key',
  'clock_adjtime',
  'clock_settime',
  'create_module',
  'delete_module',
  'finit_module',
  'get_kernel_syms',
  'init_module',
  'io_uring_enter',
  'io_uring_register',
  'io_uring_setup',
  'ioperm',
  'iopl',
  'kcmp',
  'kexec_file_load',
  'kexec_load',
  'keyctl',
  'lookup_dcookie',
  'nfsservctl',
  'open_by_handle_at',
  'perf_event_open',
  'query_module',
  'quotactl',
  'quotactl_fd',
  'reboot',
  'request_key',
  'settimeofday',
  'swapoff',
  'swapon',
  'sysfs',
  '_sysctl',
  'uselib',
  'userfaultfd',
  'ustat',
  'vhangup',
]

/** Opened by CAP_SYS_ADMIN. */
const ADMINISTRATION = [
  'bpf',
  'fsconfig',
  'fsmount',
  'fsopen',
  'fspick',
  'mount',
  'mount_setattr',
  'move_mount',
  'open_tree',
  'pivot_root',
  'setns',
  'umount',
  'umount2',
  'unshare',
]

/** CLONE_NEW* of sched.h, all but CLONE_NEWTIME, whose bit clone(2) uses for the exit signal. */
const NEW_NAMESPACES = 0x7e020000

/** The `linux.seccomp` member of an OCI specification. */
export function seccompProfile(capabilities: readonly string[]): object {
  const administrator = capabilities.includes('SYS_ADMIN')
  const rules: Rule[] = [{ names: ALWAYS, action: 'SCMP_ACT_ERRNO', errnoRet: EPERM }]
  if (!administrator) {
    rules.push({ names: ADMINISTRATION, action: 'SCMP_ACT_ERRNO', errnoRet: EPERM })
    for (const bit of bitsOf(NEW_NAMESPACES)) {
      rules.push({
        names: ['clone'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: EPERM,
        args: [{ index: 0, value: bit, valueTwo: bit, op: 'SCMP_CMP_MASKED_EQ' }],
      })
    }
    // Its flags lie in memory where a filter cannot look; programs fall back to clone.
    rules.push({ names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS })
  }
  for (const family of [AF_VSOCK, AF_ALG]) {
    rules.push({
      names: ['socket'],
      action: 'SCMP_ACT_ERRNO',
      errnoRet: EAFNOSUPPORT,
      // The kernel takes an int: bits above it must not make another number of the family, so they are masked away.
      args: [{ index: 0, value: INT_BITS, valueTwo: family, op: 'SCMP_CMP_MASKED_EQ' }],
    })
  }
  return { defaultAction: 'SCMP_ACT_ALLOW', architectures: ['SCMP_ARCH_X86_64'], syscalls: rules }
}

function bitsOf(mask: number): readonly number[] {
  return Array.from({ length: 31 }, (_, bit) => 2 ** bit).filter((bit) => (mask & bit) !== 0)
}
