/**
 * Loads the guest addon. Raw: integers in, integers out, `-errno` on failure; `index.ts` is what others import.
 */
import { createRequire } from 'node:module'
import { getSystemErrorName } from 'node:util'
import { CaissonError, errorText, UnavailableError } from '#protocol/errors'

/** One wait at a time: `arm` asks for one call of the function given to the constructor. */
export interface Poller {
  arm(events: number): void
  close(): void
}

export const READABLE = 1
export const WRITABLE = 2

/** Exports of `addon.cc`. */
export interface Binding {
  Poller: new (fd: number, ready: (events: number) => void) => Poller
  vsockListen(port: number, backlog: number): number
  unixListen(path: string): number
  accept(fd: number): number
  receiveDescriptor(fd: number): number
  read(fd: number): Uint8Array | number
  write(fd: number, bytes: Uint8Array, offset: number): number
  shutdownWrite(fd: number): number
  pipe(nonblockingRead: boolean, nonblockingWrite: boolean): [read: number, write: number] | number
  setWindowSize(fd: number, columns: number, rows: number): number
  openNull(): number
  close(fd: number): number
  mount(source: string, target: string, type: string, flags: number, data: string): Promise<number>
  unmount(target: string, flags: number): Promise<number>
  bindInRoot(root: string, path: string, target: string, mode: number, gid: number): Promise<number>
  attachLoop(file: string, readOnly: boolean, directIo: boolean): Promise<number>
  detachLoop(device: string): Promise<number>
  createMapped(name: string, target: string, parameters: string, sectors: number, readOnly: boolean): Promise<number>
  createScratch(name: string, device: string): Promise<number>
  createCrypt(
    name: string,
    device: string,
    key: Uint8Array,
    offset: number,
    sectors: number,
    sectorBytes: number,
  ): Promise<number>
  removeMapped(name: string): Promise<number>
  blockDeviceSize(path: string): Promise<number>
  linkByMac(mac: Uint8Array): Promise<number>
  linkUp(index: number, mtu: number): Promise<number>
  addAddress(index: number, address: Uint8Array, prefix: number): Promise<number>
  addGateway(index: number, gateway: Uint8Array): Promise<number>
  attachCgroupProgram(cgroup: string, program: Uint8Array, type: number, attach: number): Promise<number>
  addRoute(index: number, network: Uint8Array, prefix: number, gateway: Uint8Array): Promise<number>
  addNeighbour(index: number, address: Uint8Array, mac: Uint8Array): Promise<number>
  becomeSubreaper(): number
  openProcess(pid: number): number
  takeExit(pidfd: number): number
  signalProcess(pidfd: number, signal: number): number
  readInRoot(root: string, path: string, maxBytes: number): Promise<Uint8Array | number>
  setHostname(name: string): number
  setWallClock(milliseconds: number): number
  powerOff(): Promise<number>
}

/** A system call said no. `errno` is its name: "ENOENT". */
export class SyscallError extends CaissonError<'ERR_SYSCALL'> {
  readonly errno: string

  constructor(call: string, errno: string) {
    super('ERR_SYSCALL', `${call} failed: ${errno}`)
    this.errno = errno
  }
}

/** Beside the bundle in the guest, in the build folder elsewhere. */
const PLACES = ['./guest.node', '../build/guest.node']

let binding: Binding | undefined

/** Loaded on first use, so that code which makes no system calls runs without a compiler. */
export function native(): Binding {
  if (binding !== undefined) return binding
  const require = createRequire(import.meta.url)
  const problems: string[] = []
  for (const place of PLACES) {
    try {
      const loaded: Binding = require(place)
      binding = loaded
      return loaded
    } catch (error) {
      problems.push(errorText(error).split('\n')[0] ?? '')
    }
  }
  throw new UnavailableError('ERR_NATIVE_UNAVAILABLE', `cannot load the guest addon: ${problems.join('; ')}`, {
    hint: 'Run `node native/build.mjs --only guest`.',
  })
}

/** The result, or an error that names the call. */
export function check(call: string, result: number): number {
  if (result < 0) throw new SyscallError(call, errnoName(result))
  return result
}

/** "EAGAIN" of -11. */
export function errnoName(result: number): string {
  return getSystemErrorName(result)
}
