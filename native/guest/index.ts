/**
 * System calls of the guest that Node does not offer. The addon decides nothing; names of flags, error classes and
 * documentation are on this side. Everything that may block runs on a worker thread.
 */
import { check, errnoName, native, READABLE, SyscallError } from './binding.ts'
import { once } from './sockets.ts'

export { SyscallError } from './binding.ts'
export { type DescriptorKind, FdStream } from './fd-stream.ts'
export { Listener, listenUnix, listenVsock, receiveDescriptor } from './sockets.ts'

/** linux/mount.h */
const MOUNT_FLAGS = {
  ro: 0x1,
  nosuid: 0x2,
  nodev: 0x4,
  noexec: 0x8,
  sync: 0x10,
  remount: 0x20,
  noatime: 0x400,
  nodiratime: 0x800,
  bind: 0x1000,
  move: 0x2000,
  rec: 0x4000,
  private: 0x40000,
  slave: 0x80000,
  shared: 0x100000,
} as const

export type MountFlag = keyof typeof MOUNT_FLAGS

const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8

export async function mount(
  source: string,
  target: string,
  options: { type?: string; flags?: readonly MountFlag[]; data?: string },
): Promise<void> {
  const flags = (options.flags ?? []).reduce((bits, flag) => bits | MOUNT_FLAGS[flag], 0)
  check(`mount ${target}`, await native().mount(source, target, options.type ?? '', flags, options.data ?? ''))
}

/** @param lazy detach now and finish when nobody uses it any more */
export async function unmount(target: string, lazy = false): Promise<void> {
  check(`unmount ${target}`, await native().unmount(target, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
}

/**
 * Makes the file or directory `path` below `root` appear at `target`; symbolic links resolve inside `root`.
 * @param make mode and group of directories that are missing and then made; undefined: all must exist
 * @throws SyscallError EINVAL for anything but a file or directory
 */
export async function bindInRoot(
  root: string,
  path: string,
  target: string,
  make: { readonly mode: number; readonly gid: number } | undefined,
): Promise<void> {
  const { mode, gid } = make ?? { mode: 0, gid: 0 }
  check(`bind ${path} below ${root}`, await native().bindInRoot(root, path, target, mode, gid))
}

/** @returns the path of the loop device */
export async function attachLoop(file: string, options: { readOnly: boolean; directIo: boolean }): Promise<string> {
  return `/dev/loop${check(`loop ${file}`, await native().attachLoop(file, options.readOnly, options.directIo))}`
}

export async function detachLoop(device: string): Promise<void> {
  check(`detach ${device}`, await native().detachLoop(device))
}

/** dm-verity over a whole device, read-only. @returns the path of the device node, which devtmpfs makes */
export async function createVerity(name: string, parameters: string, sectors: number): Promise<string> {
  const made = native().createMapped(name, 'verity', parameters, sectors, true)
  return `/dev/dm-${check(`dm verity ${name}`, await made)}`
}

/**
 * dm-crypt on dm-integrity over the whole device: encrypted and authenticated, with random keys that exist in the kernel
 * alone. Blocks are of 4096 bytes; one that was never written, or that somebody else wrote, is an I/O error.
 * @returns the path of the device node
 */
export async function createScratch(name: string, device: string): Promise<string> {
  return `/dev/dm-${check(`dm scratch ${name}`, await native().createScratch(name, device))}`
}

/** dm-crypt (aes-xts-plain64) with this key of 64 bytes, which is copied for the call and wiped. @returns the device node's path */
export async function createCrypt(
  name: string,
  device: string,
  table: {
    readonly key: Uint8Array
    readonly offsetSectors: number
    readonly sectors: number
    readonly sectorBytes: number
  },
): Promise<string> {
  const { key, offsetSectors, sectors, sectorBytes } = table
  const made = native().createCrypt(name, device, key, offsetSectors, sectors, sectorBytes)
  return `/dev/dm-${check(`dm crypt ${name}`, await made)}`
}

export async function removeMapped(name: string): Promise<void> {
  check(`dm remove ${name}`, await native().removeMapped(name))
}

/** Bytes. */
export async function blockDeviceSize(path: string): Promise<number> {
  return check(`size of ${path}`, await native().blockDeviceSize(path))
}

/** Index of the interface with this hardware address. */
export async function linkByMac(mac: Uint8Array): Promise<number> {
  return check('link lookup', await native().linkByMac(mac))
}

/** @param mtu bytes; 0 leaves it */
export async function linkUp(index: number, mtu: number): Promise<void> {
  check('link up', await native().linkUp(index, mtu))
}

/** @param address 4 or 16 bytes */
export async function addAddress(index: number, address: Uint8Array, prefix: number): Promise<void> {
  check('add address', await native().addAddress(index, address, prefix))
}

export async function addGateway(index: number, gateway: Uint8Array): Promise<void> {
  check('add gateway', await native().addGateway(index, gateway))
}

/** linux/bpf.h: where a program sits on a control group, and the type of program that sits there. */
const CGROUP_PROGRAMS = {
  socket: { type: 9, attach: 2 },
  connect4: { type: 18, attach: 10 },
  connect6: { type: 18, attach: 11 },
  sendmsg4: { type: 18, attach: 14 },
  sendmsg6: { type: 18, attach: 15 },
} as const

export type CgroupProgramPlace = keyof typeof CGROUP_PROGRAMS

/** @param cgroup absolute path of its directory; it keeps the program. @param program instructions of the kernel's virtual machine */
export async function attachCgroupProgram(
  cgroup: string,
  place: CgroupProgramPlace,
  program: Uint8Array,
): Promise<void> {
  const { type, attach } = CGROUP_PROGRAMS[place]
  check(`attach ${place}`, await native().attachCgroupProgram(cgroup, program, type, attach))
}

/** @param gateway empty: the network is on the link itself */
export async function addRoute(index: number, network: Uint8Array, prefix: number, gateway: Uint8Array): Promise<void> {
  check('add route', await native().addRoute(index, network, prefix, gateway))
}

/** A neighbour that is not asked for its link address. @param mac 6 bytes */
export async function addNeighbour(index: number, address: Uint8Array, mac: Uint8Array): Promise<void> {
  check('add neighbour', await native().addNeighbour(index, address, mac))
}

/** Orphaned descendants become this process's children, so that `waitProcess` can learn how they ended. */
export function becomeSubreaper(): void {
  check('subreaper', native().becomeSubreaper())
}

/** A child of this process, or an orphan it adopted. The descriptor cannot come to mean another process. */
export class ProcessHandle {
  readonly #pidfd: number
  #closed = false

  constructor(pid: number) {
    this.#pidfd = check(`open process ${pid}`, native().openProcess(pid))
  }

  /** Reaps it. 0..255, or 128 + signal. Call once. */
  async exit(): Promise<number> {
    try {
      await once(this.#pidfd, READABLE)
      return check('wait', native().takeExit(this.#pidfd))
    } finally {
      this.#closed = true
      native().close(this.#pidfd)
    }
  }

  /** False when it has ended already. */
  signal(signal: number): boolean {
    if (this.#closed) return false
    const result = native().signalProcess(this.#pidfd, signal)
    if (result < 0 && errnoName(result) !== 'ESRCH') throw new SyscallError(`signal ${signal}`, errnoName(result))
    return result >= 0
  }
}

/**
 * Content of a regular file below `root`; symbolic links resolve inside it. Undefined when there is no such file.
 * @throws SyscallError with EFBIG above `maxBytes`, EINVAL for anything but a regular file
 */
export async function readInRoot(root: string, path: string, maxBytes: number): Promise<Uint8Array | undefined> {
  const content = await native().readInRoot(root, path, maxBytes)
  if (typeof content !== 'number') return content
  const errno = errnoName(content)
  if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined
  throw new SyscallError(`read ${path} below ${root}`, errno)
}

/** One end for this process (non-blocking), the other for a child that expects blocking calls. Both are the caller's. */
export function pipe(ours: 'read' | 'write'): { ours: number; theirs: number } {
  const ends = native().pipe(ours === 'read', ours === 'write')
  if (typeof ends === 'number') throw new SyscallError('pipe', errnoName(ends))
  const [read, write] = ends
  return ours === 'read' ? { ours: read, theirs: write } : { ours: write, theirs: read }
}

/** A descriptor of /dev/null, the caller's. */
export function openNull(): number {
  return check('open /dev/null', native().openNull())
}

export function closeDescriptor(fd: number): void {
  check('close', native().close(fd))
}

export function setHostname(name: string): void {
  check('sethostname', native().setHostname(name))
}

/** @param milliseconds since the Unix epoch */
export function setWallClock(milliseconds: number): void {
  check('settimeofday', native().setWallClock(milliseconds))
}

/** Writes what is dirty and switches the machine off; resolves only on failure. */
export async function powerOff(): Promise<never> {
  throw new SyscallError('power off', errnoName(await native().powerOff()))
}
