/** A machine in memory: the agent runs on it in milliseconds. It notes what was asked of it, in order. */

import { nodeDiskCrypto } from '#guest/platform/node/disk-crypto'
import type {
  AgentMemory,
  ByteStream,
  Clock,
  Files,
  InterfaceConfig,
  LocalHandler,
  MountRequest,
  Platform,
  ProcessExit,
  RunningProcess,
} from '#guest/platform/platform'
import { nodeCrypto } from '#protocol/node/crypto'
import { streamPair } from './stream-pair.ts'

/** Time moves only when the test says so. */
export class FakeClock implements Clock {
  #ms = 1000
  #sleepers: { readonly atMs: number; readonly wake: () => void }[] = []
  setTo: Date | undefined

  monotonicMs(): number {
    return this.#ms
  }

  now(): Date {
    return new Date(1_700_000_000_000 + this.#ms)
  }

  set(to: Date): void {
    this.setTo = to
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#sleepers.push({ atMs: this.#ms + ms, wake: resolve })
      signal?.addEventListener('abort', () => resolve(), { once: true })
    })
  }

  /** Who waits for a later time. */
  get sleepers(): number {
    return this.#sleepers.length
  }

  advance(ms: number): void {
    this.#ms += ms
    const due = this.#sleepers.filter(({ atMs }) => atMs <= this.#ms)
    this.#sleepers = this.#sleepers.filter(({ atMs }) => atMs > this.#ms)
    for (const { wake } of due) wake()
  }
}

/** A process that the test ends. */
export class FakeProcess implements RunningProcess {
  readonly pid: number
  readonly io: RunningProcess['io']
  readonly exited: Promise<ProcessExit>
  readonly signals: number[] = []
  /** The container's ends of its pipes or of its terminal. */
  readonly inside: { readonly stdin: ByteStream; readonly stdout: ByteStream; readonly stderr: ByteStream }
  windowSize: string | undefined
  #end: (exit: ProcessExit) => void = () => undefined
  #ended = false

  constructor(pid: number, options: { terminal: boolean; stdin: boolean }) {
    this.pid = pid
    const [stdin, insideStdin] = streamPair()
    const [stdout, insideStdout] = streamPair()
    const [stderr, insideStderr] = streamPair()
    this.inside = { stdin: insideStdin, stdout: insideStdout, stderr: insideStderr }
    const resize = (columns: number, rows: number) => {
      this.windowSize = `${columns}x${rows}`
    }
    this.io = options.terminal
      ? { stdin: undefined, stdout: undefined, stderr: undefined, terminal: stdout, resize }
      : { stdin: options.stdin ? stdin : undefined, stdout, stderr, terminal: undefined, resize }
    this.exited = new Promise((resolve) => {
      this.#end = resolve
    })
  }

  signal(signal: number): boolean {
    if (this.#ended) return false
    this.signals.push(signal)
    if (signal === 9) this.end(137)
    return true
  }

  end(code: number): void {
    this.#ended = true
    void this.inside.stdout.end()
    void this.inside.stderr.end()
    this.#end({ code, atMs: 42 })
  }
}

export class FakePlatform implements Platform {
  readonly log: string[] = []
  readonly content: Map<string, Uint8Array> = new Map()
  readonly clock: FakeClock = new FakeClock()
  readonly crypto: Platform['crypto'] = nodeCrypto
  readonly diskCrypto: Platform['diskCrypto'] = nodeDiskCrypto
  /** What every disk has. */
  readonly disk: Uint8Array = new Uint8Array(18 * 1024 * 1024)
  readonly tpm: undefined = undefined
  readonly processesById: Map<string, FakeProcess> = new Map()
  readonly execs: FakeProcess[] = []
  readonly codes: string[] = []
  readonly configured: InterfaceConfig[] = []
  /** What answers on the loopback interface, by port; control groups of who calls, by the caller's port. */
  readonly served: Map<number, LocalHandler> = new Map()
  readonly peers: Map<number, readonly string[]> = new Map()
  poweredOff = false
  /** What programs print, by path. */
  readonly printed: ReadonlyMap<string, string> = new Map([['/indexer', '{"devices":[],"inodes":1}']])
  /** Of every file system. */
  freeBytes = 1e9
  /** A step whose name starts so fails. */
  failing: string | undefined
  #pids = 100

  readonly files: Files = {
    read: async (path) => {
      const bytes = this.content.get(path)
      if (bytes === undefined) throw new Error(`no file ${path}`)
      return bytes
    },
    readIfExists: async (path) => this.content.get(path),
    readEnd: async (path, maxBytes) => this.content.get(path)?.slice(-maxBytes) ?? new Uint8Array(),
    write: async (path, bytes) => {
      this.#step(`write ${path}`)
      this.content.set(path, bytes.slice())
    },
    control: async (path, text) => this.#step(`control ${path} ${text}`),
    mkdir: async () => undefined,
    own: async (path, mode) => this.#step(`own ${path} ${mode.toString(8)}`),
    sync: async (path) => this.#step(`sync ${path}`),
    link: async (path, target) => this.#step(`link ${path} ${target}`),
    copyAttributes: async (from, to) => this.#step(`attributes ${from} ${to}`),
    remove: async (path) => {
      this.log.push(`remove ${path}`)
      for (const name of this.content.keys())
        if (name === path || name.startsWith(`${path}/`)) this.content.delete(name)
    },
    list: async () => [],
    readInRoot: async (_root, path) => this.content.get(`image:${path}`),
  }

  readonly processes: Platform['processes'] = {
    run: async (path) => {
      this.#step(`run ${path}`)
      const stdout = new TextEncoder().encode(this.printed.get(path) ?? '')
      return { code: 0, stdout, stderr: new Uint8Array() }
    },
  }

  readonly runtime: Platform['runtime'] = {
    create: async (id, _bundle, options) => {
      this.#step(`create ${id}`)
      const process = new FakeProcess(this.#pids++, options)
      this.processesById.set(id, process)
      return process
    },
    start: async (id) => this.#step(`start ${id}`),
    exec: async (id, _process, options) => {
      this.#step(`exec ${id}`)
      const process = new FakeProcess(this.#pids++, options)
      this.execs.push(process)
      return process
    },
    killAll: async (id, signal) => this.#step(`kill ${id} ${signal}`),
    delete: async (id) => this.#step(`delete ${id}`),
  }

  readonly storage: Platform['storage'] = {
    mount: async ({ target, type }: MountRequest) => this.#step(`mount ${type} ${target}`),
    unmount: async (target) => this.#step(`unmount ${target}`),
    bindInRoot: async ({ root, path, target }) => this.#step(`bind ${root}|${path} ${target}`),
    attachLoop: async (file) => {
      this.#step(`loop ${file}`)
      return `/dev/loop:${file}`
    },
    detachLoop: async (device) => this.#step(`detach ${device}`),
    openVerity: async (name) => {
      this.#step(`verity ${name}`)
      return `/dev/mapper:${name}`
    },
    openScratch: async (name) => {
      this.#step(`crypt ${name}`)
      return `/dev/mapper:${name}`
    },
    openCrypt: async (name) => {
      this.#step(`crypt ${name}`)
      return `/dev/mapper:${name}`
    },
    readDevice: async (_path, offset, length) => this.disk.slice(offset, offset + length),
    writeDevice: async (_path, offset, bytes) => this.disk.set(bytes, offset),
    closeMapped: async (name) => this.#step(`close ${name}`),
    freeBytes: async () => this.freeBytes,
    deviceSize: async () => this.disk.byteLength,
    findDisk: async (serial) => `/dev/${serial}`,
  }

  readonly network: Platform['network'] = {
    configure: async (config) => {
      this.#step('configure')
      this.configured.push(config)
    },
    loopbackUp: async () => this.#step('loopback'),
    setHostname: async (name) => this.#step(`hostname ${name}`),
    connectLocal: async () => streamPair()[0],
    serveLocal: async (port, handle) => {
      this.#step(`serve ${port}`)
      this.served.set(port, handle)
      return { close: async () => undefined }
    },
    confine: async (cgroupPath) => this.#step(`confine ${cgroupPath}`),
    localPeer: async (_port, clientPort) => this.peers.get(clientPort) ?? [],
    http: async () => ({
      request: async () => {
        throw new Error('no network')
      },
      close: async () => undefined,
    }),
  }

  listenVsock(): never {
    throw new Error('not in this test')
  }

  async memory(): Promise<AgentMemory> {
    return { anonymousBytes: 1, residentBytes: 2 }
  }

  consoleCode(code: string): void {
    this.codes.push(code)
  }

  async powerOff(): Promise<void> {
    this.poweredOff = true
  }

  #step(what: string): void {
    if (this.failing !== undefined && what.startsWith(this.failing)) throw new Error(`${what} failed`)
    this.log.push(what)
  }
}
