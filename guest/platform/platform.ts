/**
 * What the agent asks of the machine it runs on. `guest/agent` is written against these interfaces alone, so it runs in
 * unit tests without a VM and does not know its JavaScript engine; `guest/platform/node/` is the real thing.
 */
import type { ByteStream } from '#protocol/byte-stream'
import type { CryptoProvider } from '#protocol/crypto-provider'
import type { HttpTransport } from '#protocol/http-transport'

export type { ByteStream }

export interface VsockListener {
  readonly connections: AsyncIterable<ByteStream>
  close(): void
}

/** Files the guest itself names. Paths never contain anything the host or an image chose. */
export interface Files {
  read(path: string, maxBytes: number): Promise<Uint8Array>
  /** Creates or replaces atomically. */
  write(path: string, bytes: Uint8Array, mode: number): Promise<void>
  mkdir(path: string, mode: number): Promise<void>
  remove(path: string): Promise<void>
  exists(path: string): Promise<boolean>
  list(path: string): Promise<readonly string[]>
}

export interface ProcessExit {
  /** 0..255, or 128 + signal. */
  readonly code: number
  readonly atMs: number
}

export interface ChildProcess {
  readonly pid: number
  readonly exited: Promise<ProcessExit>
  kill(signal: number): void
}

export interface Processes {
  /** Runs a guest tool to its end with a bounded output; does not throw on a non-zero exit. */
  run(path: string, args: readonly string[], options?: { input?: Uint8Array; timeoutMs?: number }): Promise<{
    code: number
    stdout: Uint8Array
    stderr: Uint8Array
  }>
  signal(pid: number, signal: number): void
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
}

/** crun, and the wiring of stdio around it. The bundle directory is the guest's own. */
export interface OciRuntime {
  create(id: string, bundle: string, options: { terminal: boolean; stdin: boolean }): Promise<RunningProcess>
  start(id: string): Promise<void>
  /** `processJson` is an OCI process object. */
  exec(id: string, processJson: string, options: { terminal: boolean; stdin: boolean }): Promise<RunningProcess>
  kill(id: string, signal: number, all: boolean): Promise<void>
  delete(id: string): Promise<void>
}

export interface MountRequest {
  readonly source: string
  readonly target: string
  readonly type: string
  /** MS_* by name: "ro", "nosuid", "nodev", "noexec", "bind", "rec". */
  readonly flags: readonly string[]
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
  unmount(target: string): Promise<void>
  /** Path of the loop device over `file`; read-only unless asked otherwise. */
  attachLoop(file: string, options: { readOnly: boolean }): Promise<string>
  detachLoop(device: string): Promise<void>
  /** Path of a device-mapper device. */
  openVerity(name: string, device: VerityDevice): Promise<string>
  /** dm-crypt aes-xts-plain64 with a fresh random key that exists in this guest's kernel only. */
  openScratch(name: string, device: string): Promise<string>
  closeMapped(name: string): Promise<void>
  /** Bytes of a block device. */
  deviceSize(path: string): Promise<number>
  /** Block device whose virtio serial number is `serial` ("scratch"), or undefined. */
  findDisk(serial: string): Promise<string | undefined>
}

export interface Network {
  /** Brings up the interface with this MAC; throws ERR_NETWORK_NO_DEVICE when there is none. */
  configure(config: {
    mac: string
    addresses: readonly string[]
    gateways: readonly string[]
    mtu: number
  }): Promise<void>
  loopbackUp(): Promise<void>
  setHostname(name: string): Promise<void>
  /** TCP to a port of the sandbox (127.0.0.1). */
  connectLocal(port: number): Promise<ByteStream>
  /** @param caPem extra trusted roots; there are no built-in ones. */
  http(caPem: readonly string[]): HttpTransport
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
  listenVsock(port: number): VsockListener
  /** One enumerated code on the serial console, nothing else ever. */
  consoleCode(code: string): void
  powerOff(): void
}
