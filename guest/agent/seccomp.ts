/**
 * System calls that no container gets: what changes the kernel, the clock or the guest's own mounts, escapes namespaces,
 * or talks past the agent to the host. A list of denials, because the guest is the container's own machine and the kernel
 * is the tenant's; what a capability of the policy opens is opened. The policy's `seccomp` takes away more.
 */
import { GUEST_SECCOMP, type SeccompRule } from '#policies/seccomp-rule'

interface Rule {
  readonly names: readonly string[]
  readonly action: 'SCMP_ACT_ERRNO' | 'SCMP_ACT_ALLOW'
  readonly errnoRet?: number
  readonly args?: readonly Argument[]
}

interface Argument {
  readonly index: number
  readonly value: number
  readonly valueTwo: number
  readonly op: 'SCMP_CMP_MASKED_EQ'
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

/**
 * What containerd's default profile keeps from containers besides, with the capabilities that open it. Calls that are newer
 * than the profile, which it refuses unknown, are the guest's own filter's to judge.
 */
const RUNTIME_DEFAULT: readonly (readonly [capabilities: readonly string[], names: readonly string[]])[] = [
  [
    [],
    [
      'afs_syscall',
      'getpmsg',
      'migrate_pages',
      'move_pages',
      'pivot_root',
      'putpmsg',
      'security',
      'tuxcall',
      'vserver',
    ],
  ],
  [['SYS_ADMIN'], ['fanotify_init', 'name_to_handle_at', 'setdomainname', 'sethostname']],
  [['SYS_ADMIN', 'SYSLOG'], ['syslog']],
  [['SYS_CHROOT'], ['chroot']],
  [['SYS_NICE'], ['get_mempolicy', 'mbind', 'set_mempolicy', 'set_mempolicy_home_node']],
  [['SYS_PTRACE'], ['pidfd_getfd', 'process_madvise', 'process_vm_readv', 'process_vm_writev']],
]

/** UNAME26 and PER_LINUX32 of personality.h: the bits that the profile lets a program set. */
const PERSONALITY_BITS = 0x20008

/** AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET. */
const ALLOWED_FAMILIES: readonly number[] = [1, 2, 10, 16, 17]

/** The `linux.seccomp` member of an OCI specification. `rule` takes away from what every container may, and adds nothing. */
export function seccompProfile(capabilities: readonly string[], rule: SeccompRule = GUEST_SECCOMP): object {
  if (rule.kind === 'allow') return profile('SCMP_ACT_ERRNO', allowedCalls(capabilities, rule.names))
  const base = guestRules(capabilities)
  if (rule.kind === 'guest') return profile('SCMP_ACT_ALLOW', base)
  if (rule.kind === 'deny') return profile('SCMP_ACT_ALLOW', without(base, rule.names))
  const withheld = RUNTIME_DEFAULT.filter(([opening]) => !opening.some((name) => capabilities.includes(name)))
  const names = withheld.flatMap(([, calls]) => calls)
  return profile('SCMP_ACT_ALLOW', [...without(base, names), ...otherPersonalities()])
}

/** A call that is denied whatever its arguments needs no rule about them, which would contradict this one. */
function without(base: readonly Rule[], denied: readonly string[]): readonly Rule[] {
  const kept = base.filter(({ names, args }) => args === undefined || !names.some((name) => denied.includes(name)))
  const known = new Set(kept.flatMap(({ names }) => names))
  const names = [...new Set(denied)].filter((name) => !known.has(name))
  return names.length === 0 ? kept : [...kept, refusal(names)]
}

/**
 * Refuses every personality but those of PERSONALITY_BITS and all ones, which asks for the present one. A filter cannot say
 * "none of these", but that some other bit is set while some bit is clear: then so are two of the others that are next to
 * each other in a circle, or one of them and one of PERSONALITY_BITS. The kernel takes 32 bits.
 */
function otherPersonalities(): readonly Rule[] {
  const others = bitsOf(~PERSONALITY_BITS >>> 0)
  const [first = 0] = others
  const pairs = [
    ...others.map((bit, index) => [bit, others[(index + 1) % others.length] ?? first] as const),
    ...bitsOf(PERSONALITY_BITS).map((bit) => [first, bit] as const),
  ]
  return pairs.map(([set, clear]) => refusal(['personality'], EPERM, masked(set + clear, set)))
}

function guestRules(capabilities: readonly string[]): readonly Rule[] {
  const rules: Rule[] = [refusal(ALWAYS)]
  if (!capabilities.includes('SYS_ADMIN')) {
    rules.push(refusal(ADMINISTRATION))
    for (const bit of bitsOf(NEW_NAMESPACES)) rules.push(refusal(['clone'], EPERM, masked(bit, bit)))
    // Its flags lie in memory where a filter cannot look; programs fall back to clone.
    rules.push(refusal(['clone3'], ENOSYS))
  }
  // The kernel takes an int: bits above it must not make another number of the family, so they are masked away.
  for (const family of [AF_VSOCK, AF_ALG]) rules.push(refusal(['socket'], EAFNOSUPPORT, masked(INT_BITS, family)))
  return rules
}

/** Of these names, what the guest's own filter lets through: everything else is refused as the default. */
function allowedCalls(capabilities: readonly string[], names: readonly string[]): readonly Rule[] {
  const administrator = capabilities.includes('SYS_ADMIN')
  const withheld = new Set([...ALWAYS, ...(administrator ? [] : [...ADMINISTRATION, 'clone', 'clone3']), 'socket'])
  const plain = [...new Set(names)].filter((name) => !withheld.has(name))
  const rules: Rule[] = plain.length === 0 ? [] : [{ names: plain, action: 'SCMP_ACT_ALLOW' }]
  if (!administrator) {
    if (names.includes('clone')) {
      rules.push({ names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [masked(NEW_NAMESPACES, 0)] })
    }
    rules.push(refusal(['clone3'], ENOSYS))
  }
  if (names.includes('socket')) {
    for (const family of ALLOWED_FAMILIES) {
      rules.push({ names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [masked(INT_BITS, family)] })
    }
  }
  return rules
}

function profile(defaultAction: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO', syscalls: readonly Rule[]): object {
  const errno = defaultAction === 'SCMP_ACT_ERRNO' ? { defaultErrnoRet: EPERM } : {}
  return { defaultAction, ...errno, architectures: ['SCMP_ARCH_X86_64'], syscalls }
}

function refusal(names: readonly string[], errnoRet: number = EPERM, arg?: Argument): Rule {
  return { names, action: 'SCMP_ACT_ERRNO', errnoRet, ...(arg === undefined ? {} : { args: [arg] }) }
}

/** Of the first argument, the bits of `mask` are those of `value`. */
function masked(mask: number, value: number): Argument {
  return { index: 0, value: mask, valueTwo: value, op: 'SCMP_CMP_MASKED_EQ' }
}

function bitsOf(mask: number): readonly number[] {
  return Array.from({ length: 32 }, (_, bit) => 2 ** bit).filter((bit) => (mask & bit) !== 0)
}
