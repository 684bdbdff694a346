/**
 * What the agent asks of the machine it runs on. `guest/agent` is written against these interfaces alone, so it runs in
 * unit tests without a VM and does not know its JavaScript engine; `guest/platform/node/` is the real thing.
 */

import type { ByteStream } from '#protocol/byte-stream'
import type { CryptoProvider } from '#protocol/crypto-provider'
import type { HttpTransport } from '#protocol/http-transport'
import type { DiskCrypto } from '../luks/keyslot.ts'

export type { ByteStream }

export interface VsockListener {
  readonly connections: AsyncIterable<ByteStream>
  close(): void
}

/** Files the guest itself names. Paths never contain anything the host or an image chose. */
export interface Files {
  /** Throws `UnavailableError` ERR_FILE_TOO_LARGE above `maxBytes`. Files of proc and sysfs too. */
  read(path: string, maxBytes: number): Promise<Uint8Array>
  /** Undefined when there is no such file. */
  readIfExists(path: string, maxBytes: number): Promise<Uint8Array | undefined>
  /** At most the last `maxBytes` of a file, however large a workload says that it is; empty when there is none. */
  readEnd(path: string, maxBytes: number): Promise<Uint8Array>
  /** Creates or replaces atomically. Owner is root unless given. */
  write(path: string, bytes: Uint8Array, mode: number, owner?: { uid: number; gid: number }): Promise<void>
  /** Gives the directory `to` owner, mode and times of the directory `from`. */
  copyAttributes(from: string, to: string): Promise<void>
  /** Writes to a file that the kernel offers (proc, sysfs, cgroup), in one write. */
  control(path: string, text: string): Promise<void>
  /** With missing parents; an existing directory is fine. */
  mkdir(path: string, mode: number, owner?: { uid: number; gid: number }): Promise<void>
  /** Mode and owner of a file or directory that is there. */
  own(path: string, mode: number, owner: { uid: number; gid: number }): Promise<void>
  /** Resolves when the directory is on its disk, with its owner, its mode and what is in it by now. */
  sync(path: string): Promise<void>
  /** A symbolic link at `path`, in place of what was there, atomically. */
  link(path: string, target: string): Promise<void>
  /** A file or a whole directory; absent is fine. Never follows mounts: unmount first. */
  remove(path: string): Promise<void>
  /** Names; empty when there is no such directory. */
  list(path: string): Promise<readonly string[]>
  /**
   * A regular file inside a container's root, where an image chose every name and link: resolution never leaves `root`.
   * Undefined when there is no such file; throws above `maxBytes` and for anything but a regular file.
   */
  readInRoot(root: string, path: string, maxBytes: number): Promise<Uint8Array | undefined>
}

export interface ProcessExit {
  /** 0..255, or 128 + signal. */
  readonly code: number
  /** Milliseconds since the Unix epoch. */
  readonly atMs: number
}

export interface ToolResult {
  readonly code: number
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
}

export interface Processes {
  /**
   * Runs a guest tool to its end with an output of at most 64 KiB each (more is cut); does not throw on a non-zero exit.
   * Throws `UnavailableError` ERR_TOOL when it cannot start or takes longer than `timeoutMs` (default 60000).
   */
  run(
    path: string,
    args: readonly string[],
    options?: { input?: Uint8Array; timeoutMs?: number; signal?: AbortSignal },
  ): Promise<ToolResult>
}

/** How a container process is wired: pipes of the agent, or one pseudo-terminal. */
export interface ContainerIo {
  readonly stdin: ByteStream | undefined
  readonly stdout: ByteStream | undefined
  readonly stderr: ByteStream | undefined
  /** Present for terminals, in place of the three above. */
  readonly terminal: ByteStream | undefined
  resize(columns: number, rows: number): void
}

export interface RunningProcess {
  readonly pid: number
  readonly io: ContainerIo
  readonly exited: Promise<ProcessExit>
  /** To exactly this process; false when it has ended. */
  signal(signal: number): boolean
}

/** crun, and the wiring of stdio around it. Bundle and ids are the guest's own. Throws `UnavailableError` ERR_RUNTIME. */
export interface OciRuntime {
  create(id: string, bundle: string, options: { terminal: boolean; stdin: boolean }): Promise<RunningProcess>
  start(id: string): Promise<void>
  /** `processJson` is an OCI process object. */
  exec(id: string, processJson: string, options: { terminal: boolean; stdin: boolean }): Promise<RunningProcess>
  /** Every process of the container. */
  killAll(id: string, signal: number): Promise<void>
  /** Kills what is left of it and removes its cgroup; an unknown id is fine. */
  delete(id: string): Promise<void>
}

export interface MountRequest {
  readonly source: string
  readonly target: string
  readonly type: string
  readonly flags: readonly ('ro' | 'nosuid' | 'nodev' | 'noexec' | 'noatime' | 'bind' | 'rec')[]
  readonly data: string
}

export interface VerityDevice {
  /** File or device holding the data, and the file or device holding the hash tree. */
  readonly data: string
  readonly hash: string
  readonly dataBlockSize: 512 | 4096
  readonly hashBlockSize: 4096 | 512
  readonly dataBlocks: number
  /** Byte offset of the tree in `hash`. */
  readonly hashOffset: number
  /** Lower-case hex, SHA-256. */
  readonly rootHash: string
  readonly salt: string
}

export interface Storage {
  mount(request: MountRequest): Promise<void>
  /** Detaches at once; what still uses it keeps it until it is done. */
  unmount(target: string): Promise<void>
  /**
   * Makes the file or directory `path` of a volume appear at `target`, which is made: resolution never leaves `root`, where
   * a workload may have chosen every name and link. With `make`, directories that are missing are made with that mode and
   * owner. Throws `UnavailableError` ERR_VOLUME_PATH when there is no such file or directory.
   */
  bindInRoot(request: {
    readonly root: string
    readonly path: string
    readonly target: string
    readonly make: { readonly mode: number; readonly gid: number } | undefined
  }): Promise<void>
  /** Path of the loop device over `file`; read-only unless asked otherwise. */
  attachLoop(file: string, options: { readOnly: boolean }): Promise<string>
  detachLoop(device: string): Promise<void>
  /** Path of a device-mapper device. */
  openVerity(name: string, device: VerityDevice): Promise<string>
  /**
   * Encrypted and authenticated with fresh random keys that exist in this guest's kernel only; what was never written, or
   * was changed by the host, is an I/O error. Throws `UnavailableError` ERR_SCRATCH.
   */
  openScratch(name: string, device: string): Promise<string>
  closeMapped(name: string): Promise<void>
  /** dm-crypt aes-xts-plain64 with this key over `sectors` (of 512 bytes) from `offset` on; bytes but for the count. */
  openCrypt(
    name: string,
    device: { device: string; key: Uint8Array; offset: number; sectors: number; sectorBytes: 512 | 4096 },
  ): Promise<string>
  /** Exactly these bytes. Throws `UnavailableError` ERR_VOLUME_DISK when they cannot be read, as beyond the end. */
  readDevice(path: string, offset: number, length: number): Promise<Uint8Array>
  /** Resolves when the disk has them all. Throws `UnavailableError` ERR_VOLUME_DISK when it does not take them. */
  writeDevice(path: string, offset: number, bytes: Uint8Array): Promise<void>
  /** Of the file system that holds `path`: what can still be written, bytes. */
  freeBytes(path: string): Promise<number>
  /** Bytes of a block device. */
  deviceSize(path: string): Promise<number>
  /** Block device whose virtio serial number is `serial` ("scratch"), or undefined. */
  findDisk(serial: string): Promise<string | undefined>
}

/** 4 or 16 bytes in network order. */
export type IpAddress = Uint8Array

export interface InterfaceConfig {
  /** 6 bytes; it selects the device. */
  readonly mac: Uint8Array
  readonly addresses: readonly { readonly address: IpAddress; readonly prefix: number }[]
  readonly gateways: readonly IpAddress[]
  /** Beside those by the gateways; undefined gateway: on the link itself. */
  readonly routes: readonly {
    readonly network: IpAddress
    readonly prefix: number
    readonly gateway: IpAddress | undefined
  }[]
  /** Link addresses that are known for good. */
  readonly neighbours: readonly { readonly address: IpAddress; readonly mac: Uint8Array }[]
  /** 0 leaves the device's own. */
  readonly mtu: number
}

/** A request on the loopback interface, as far as it says something. Nothing of it tells who asks. */
export interface LocalRequest {
  readonly method: string
  /** Path and query, as sent. */
  readonly target: string
  /** The Host header; empty when there is none. */
  readonly host: string
  /** The caller's end of the connection. */
  readonly peerPort: number
}

export interface LocalResponse {
  readonly status: number
  readonly contentType: string
  readonly body: Uint8Array
}

export type LocalHandler = (request: LocalRequest) => Promise<LocalResponse>

/** Instructions of the kernel's virtual machine; each answers 1 for yes. */
export interface SocketPrograms {
  readonly to4: Uint8Array
  readonly to6: Uint8Array
  readonly socket: Uint8Array
}

export interface Network {
  /** Brings up the interface with this MAC; throws `UnavailableError` ERR_NETWORK_NO_DEVICE or ERR_NETWORK. */
  configure(config: InterfaceConfig): Promise<void>
  loopbackUp(): Promise<void>
  setHostname(name: string): Promise<void>
  /** TCP to a port of the sandbox; throws `UnavailableError` ERR_PORT_CLOSED when nobody listens. */
  connectLocal(port: number): Promise<ByteStream>
  /** HTTP at 127.0.0.1, one request on each connection; throws `UnavailableError` ERR_PORT_TAKEN. */
  serveLocal(port: number, handle: LocalHandler): Promise<{ close(): Promise<void> }>
  /**
   * Control groups ("/caisson/c1") of all processes that hold the client's end of a loopback connection to `port`; empty
   * when there are none. Throws `UnavailableError` ERR_PEER when there are too many to look through.
   */
  localPeer(port: number, clientPort: number): Promise<readonly string[]>
  /**
   * Holds a control group ("/caisson/c1") to programs that are asked about sockets and addresses; it keeps them. Throws
   * `UnavailableError` ERR_EGRESS when the kernel does not take one.
   */
  confine(cgroupPath: string, programs: SocketPrograms): Promise<void>
  /**
   * @param caPem trusted roots; there are no built-in ones
   * @param hosts names that DNS is not asked for
   */
  http(
    caPem: readonly string[],
    hosts?: Readonly<Record<string, string>>,
    proxy?: { readonly url: string; readonly noProxy: readonly string[] },
  ): Promise<HttpTransport>
}

export interface Tpm {
  /** One whole command, one whole response. Calls are serialised. */
  submit(command: Uint8Array): Promise<Uint8Array>
  /** The firmware's event log, at most 1 MiB. */
  eventLog(): Promise<Uint8Array>
}

export interface Clock {
  /** Monotonic milliseconds since boot. */
  monotonicMs(): number
  /** Wall clock; after attestation it follows the verifier's signed time and never runs backwards. */
  now(): Date
  /** Sets the wall clock; ignored when `to` lies before `now()` and the clock was set once already. */
  set(to: Date): void
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

/** Memory of the agent's own process, bytes. */
export interface AgentMemory {
  readonly anonymousBytes: number
  readonly residentBytes: number
}

export interface Platform {
  readonly files: Files
  readonly processes: Processes
  readonly runtime: OciRuntime
  readonly storage: Storage
  readonly network: Network
  /** Undefined when the machine has none (platform `none`). */
  readonly tpm: Tpm | undefined
  readonly clock: Clock
  readonly crypto: CryptoProvider
  readonly diskCrypto: DiskCrypto
  listenVsock(port: number): VsockListener
  memory(): Promise<AgentMemory>
  /** One enumerated code on the serial console, nothing else ever. */
  consoleCode(code: string): void
  /** Writes what is dirty and switches the machine off; rejects when the machine refuses. */
  powerOff(): Promise<void>
}
