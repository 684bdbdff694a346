/**
 * The OCI runtime specification of a container, derived from the verified image configuration and the admitted request.
 * Pure. Whatever the host said is here only where a rule of the policy allowed it.
 */
import type { ImageConfig } from '#image/manifest/config'
import type { AdmittedContainer } from '#policies/engine'
import { CaissonError } from '#protocol/errors'
import type { ImageUser } from './image-user.ts'
import type { ResourceLimits } from './requests.ts'
import { seccompProfile } from './seccomp.ts'

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const MAX_OPEN_FILES = 65_536
const DEFAULT_PIDS = 4096

/** A block device that the container gets as it is. */
export interface DeviceNode {
  readonly path: string
  readonly major: number
  readonly minor: number
  readonly readOnly: boolean
  readonly uid: number
  readonly gid: number
}

/** A directory or file of the guest that appears in the container. */
export interface BindMount {
  readonly source: string
  readonly destination: string
  readonly readOnly: boolean
}

export interface SpecInput {
  readonly config: ImageConfig
  readonly admitted: AdmittedContainer
  readonly user: ImageUser
  /** The mounted overlay. */
  readonly rootfs: string
  /** Below the cgroup root: "/caisson/c1". */
  readonly cgroupPath: string
  readonly hostname: string
  readonly terminal: boolean
  readonly resources: ResourceLimits
  /** What the image itself declares; everything else is mounted over them. */
  readonly imageVolumes: readonly BindMount[]
  /** Host names, secrets and scratch directories, in mount order. */
  readonly binds: readonly BindMount[]
  readonly devices: readonly DeviceNode[]
  /** Of the container's IPC namespace. */
  readonly sysctls: Readonly<Record<string, string>>
  /** Path of the process namespace to join; undefined: one of its own. */
  readonly processes: string | undefined
}

export interface OciProcess {
  readonly terminal: boolean
  readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids: readonly number[] }
  readonly args: readonly string[]
  readonly env: readonly string[]
  readonly cwd: string
  readonly capabilities: Readonly<Record<'bounding' | 'effective' | 'permitted', readonly string[]>>
  readonly rlimits: readonly { readonly type: string; readonly soft: number; readonly hard: number }[]
  readonly noNewPrivileges: true
}

/** As much of it as a process depends on. */
export type ProcessInput = Pick<SpecInput, 'config' | 'admitted' | 'user' | 'hostname' | 'terminal'>

/** @throws CaissonError ERR_IMAGE_COMMAND when neither image nor policy names a command */
export function buildProcess(input: ProcessInput): OciProcess {
  const { config, admitted, user, hostname, terminal } = input
  const args = admitted.args ?? [...config.entrypoint, ...config.cmd]
  if (args.length === 0) {
    throw new CaissonError('ERR_IMAGE_COMMAND', 'neither the image nor the policy names a command', {
      hint: 'Write `args` for this container in the policy.',
    })
  }
  const groups = [...new Set([...user.additionalGids, ...admitted.rule.groups])]
  const capabilities = admitted.rule.capabilities.map((name) => `CAP_${name}`)
  const defaults = [DEFAULT_PATH, `HOSTNAME=${hostname}`, `HOME=${user.home}`, ...(terminal ? ['TERM=xterm'] : [])]
  return {
    terminal,
    user: { uid: user.uid, gid: user.gid, additionalGids: groups },
    args,
    env: mergeEnv(defaults, config.env, admitted.env),
    cwd: admitted.rule.workingDir ?? config.workingDir,
    // Neither inheritable nor ambient: a user other than root gets what the file it starts carries, which is nothing.
    capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    rlimits: [{ type: 'RLIMIT_NOFILE', soft: MAX_OPEN_FILES, hard: MAX_OPEN_FILES }],
    noNewPrivileges: true,
  }
}

/** The process object of an exec: the container's own, with other arguments. */
export function execProcess(first: OciProcess, args: readonly string[], terminal: boolean): OciProcess {
  const env = terminal ? mergeEnv(['TERM=xterm'], first.env) : first.env
  return { ...first, args, env, terminal }
}

export function buildOciSpec(input: SpecInput): object {
  const { admitted } = input
  return {
    ociVersion: '1.0.2',
    process: buildProcess(input),
    root: { path: input.rootfs, readonly: admitted.rule.readOnlyRoot },
    mounts: [
      ...SYSTEM_MOUNTS,
      ...input.imageVolumes.map(bind),
      ...admitted.mounts.filter(({ kind, volume }) => kind === 'tmpfs' && volume === undefined).map(tmpfs),
      ...input.binds.map(bind),
    ],
    linux: {
      cgroupsPath: input.cgroupPath,
      // The guest is the pod: containers share its network and host name.
      namespaces: [
        { type: 'pid', ...(input.processes === undefined ? {} : { path: input.processes }) },
        ...['ipc', 'mount', 'cgroup'].map((type) => ({ type })),
      ],
      sysctl: input.sysctls,
      ...(input.devices.length === 0 ? {} : { devices: input.devices.map(deviceNode) }),
      resources: resources(input.resources, input.devices),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READ_ONLY_PATHS,
      seccomp: seccompProfile(admitted.rule.capabilities, admitted.rule.seccomp),
    },
  }
}

/** Later lists win; each variable once, where it was first named. */
export function mergeEnv(...lists: readonly (readonly string[])[]): readonly string[] {
  const merged = new Map<string, string>()
  for (const entry of lists.flat()) merged.set(entry.slice(0, entry.indexOf('=')), entry)
  return [...merged.values()]
}

function resources(limits: ResourceLimits, nodes: readonly DeviceNode[]): object {
  const { memoryBytes, cpuQuotaUs, cpuPeriodUs, cpuShares, pids } = limits
  return {
    // Devices of the container's own /dev only; anything the image carries is refused by the mount besides.
    devices: [
      { allow: false, access: 'rwm' },
      ...ALLOWED_DEVICES.map(([major, minor]) => ({ allow: true, type: 'c', major, minor, access: 'rwm' })),
      ...nodes.map(({ major, minor, readOnly }) => {
        return { allow: true, type: 'b', major, minor, access: readOnly ? 'r' : 'rw' }
      }),
    ],
    ...(memoryBytes > 0 ? { memory: { limit: memoryBytes, swap: memoryBytes } } : {}),
    ...(cpuQuotaUs > 0 || cpuShares > 0
      ? {
          cpu: {
            ...(cpuQuotaUs > 0 ? { quota: cpuQuotaUs, period: cpuPeriodUs > 0 ? cpuPeriodUs : 100_000 } : {}),
            ...(cpuShares > 0 ? { shares: cpuShares } : {}),
          },
        }
      : {}),
    pids: { limit: pids > 0 ? pids : DEFAULT_PIDS },
  }
}

/** null, zero, full, random, urandom, tty, ptmx; undefined: every minor of the pseudo-terminals. */
const ALLOWED_DEVICES: readonly (readonly [major: number, minor: number | undefined])[] = [
  [1, 3],
  [1, 5],
  [1, 7],
  [1, 8],
  [1, 9],
  [5, 0],
  [5, 2],
  [136, undefined],
]

function deviceNode({ path, major, minor, uid, gid }: DeviceNode): object {
  return { path, type: 'b', major, minor, fileMode: 0o660, uid, gid }
}

function tmpfs(mount: { path: string; readOnly: boolean; maxBytes: number | undefined }): object {
  const size = mount.maxBytes === undefined ? [] : [`size=${mount.maxBytes}`]
  const options = ['nosuid', 'nodev', mount.readOnly ? 'ro' : 'rw', 'mode=1777', ...size]
  return { destination: mount.path, type: 'tmpfs', source: 'tmpfs', options }
}

function bind({ source, destination, readOnly }: BindMount): object {
  const options = ['rbind', 'rprivate', 'nosuid', 'nodev', readOnly ? 'ro' : 'rw']
  return { destination, type: 'bind', source, options }
}

const SYSTEM_MOUNTS: readonly object[] = [
  { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
  {
    destination: '/dev',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
  },
  {
    destination: '/dev/pts',
    type: 'devpts',
    source: 'devpts',
    options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
  },
  {
    destination: '/dev/shm',
    type: 'tmpfs',
    source: 'shm',
    options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
  },
  { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
  { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
  {
    destination: '/sys/fs/cgroup',
    type: 'cgroup',
    source: 'cgroup',
    options: ['nosuid', 'noexec', 'nodev', 'relatime', 'ro'],
  },
]

const MASKED_PATHS: readonly string[] = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
  '/sys/kernel/security',
  '/sys/kernel/config',
]

const READ_ONLY_PATHS: readonly string[] = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']
