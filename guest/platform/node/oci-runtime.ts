/**
 * crun, and the wiring of a container's stdio around it: pipes whose other ends crun hands on, or the pseudo-terminal
 * that crun sends over its console socket. crun goes away after create and exec, the container's process becomes a child
 * of the agent (child subreaper), and its exit status is taken through a pidfd.
 */
import { spawn } from 'node:child_process'
import {
  becomeSubreaper,
  closeDescriptor,
  FdStream,
  listenUnix,
  openNull,
  ProcessHandle,
  pipe,
  receiveDescriptor,
} from '#native/guest/index'
import type { ByteStream } from '#protocol/byte-stream'
import { errorText, UnavailableError } from '#protocol/errors'
import type { ContainerIo, Files, OciRuntime, ProcessExit, Processes, RunningProcess } from '../platform.ts'
import { TOOL_ENVIRONMENT } from './processes.ts'

const TIMEOUT_MS = 120_000
const UNKNOWN_EXIT = 255
const MAX_LOG_BYTES = 64 * 1024

export interface CrunOptions {
  readonly files: Files
  readonly processes: Processes
  /** Default /usr/bin/crun. */
  readonly path?: string
  /** State of crun and short-lived files; the paths must stay below 100 bytes. */
  readonly stateDir: string
  /** Default cgroupfs. */
  readonly cgroupManager?: string
}

export class Crun implements OciRuntime {
  readonly #files: Files
  readonly #processes: Processes
  readonly #path: string
  readonly #dir: string
  readonly #global: readonly string[]
  #sequence = 0
  #prepared: Promise<void> | undefined

  constructor(options: CrunOptions) {
    this.#files = options.files
    this.#processes = options.processes
    this.#path = options.path ?? '/usr/bin/crun'
    this.#dir = options.stateDir
    this.#global = [`--root=${options.stateDir}/state`, `--cgroup-manager=${options.cgroupManager ?? 'cgroupfs'}`]
  }

  async create(id: string, bundle: string, options: { terminal: boolean; stdin: boolean }): Promise<RunningProcess> {
    return this.#launch(
      (scratch, console) => ['create', '--no-new-keyring', `--bundle=${bundle}`, ...pidFile(scratch), ...console, id],
      options,
    )
  }

  async start(id: string): Promise<void> {
    await this.#control(['start', id])
  }

  async exec(id: string, processJson: string, options: { terminal: boolean; stdin: boolean }): Promise<RunningProcess> {
    await this.#prepare()
    const file = `${this.#dir}/process-${this.#sequence++}.json`
    await this.#files.write(file, new TextEncoder().encode(processJson), 0o600)
    try {
      return await this.#launch(
        (scratch, console) => ['exec', '--detach', `--process=${file}`, ...pidFile(scratch), ...console, id],
        options,
      )
    } finally {
      await this.#files.remove(file)
    }
  }

  async killAll(id: string, signal: number): Promise<void> {
    await this.#control(['kill', '--all', id, String(signal)])
  }

  async delete(id: string): Promise<void> {
    const known = await this.#files.list(`${this.#dir}/state`)
    if (known.includes(id)) await this.#control(['delete', '--force', id])
  }

  async #control(args: readonly string[]): Promise<void> {
    await this.#prepare()
    const result = await this.#processes.run(this.#path, [...this.#global, ...args], { timeoutMs: TIMEOUT_MS })
    if (result.code !== 0) throw runtimeError(args[0] ?? '', new TextDecoder().decode(result.stderr))
  }

  async #launch(
    command: (scratch: string, console: readonly string[]) => readonly string[],
    { terminal, stdin }: { terminal: boolean; stdin: boolean },
  ): Promise<RunningProcess> {
    await this.#prepare()
    const scratch = `${this.#dir}/${this.#sequence++}`
    await using cleanup = new AsyncDisposableStack()
    cleanup.defer(async () => {
      for (const suffix of ['.pid', '.log', '.sock']) await this.#files.remove(scratch + suffix)
    })
    const wiring = terminal ? wireTerminal(`${scratch}.sock`) : wirePipes(stdin)
    try {
      const consoleArgs = terminal ? [`--console-socket=${scratch}.sock`] : []
      const args = [...this.#global, `--log=${scratch}.log`, ...command(scratch, consoleArgs)]
      const spawned = await spawnWith(this.#path, args, wiring.theirs)
      if (spawned !== 0) {
        const log = await this.#files.readIfExists(`${scratch}.log`, MAX_LOG_BYTES)
        throw runtimeError(args.find((arg) => !arg.startsWith('--')) ?? '', new TextDecoder().decode(log))
      }
      const pid = Number(new TextDecoder().decode(await this.#files.read(`${scratch}.pid`, 32)).trim())
      // Before anything else can reap it: nobody but this process may, so the number still means the same process.
      const handle = new ProcessHandle(pid)
      const exited = exitOf(handle)
      return { pid, io: await wiring.io(), exited, signal: (signal) => handle.signal(signal) }
    } catch (error) {
      wiring.abandon()
      throw error
    }
  }

  #prepare(): Promise<void> {
    this.#prepared ??= (async () => {
      becomeSubreaper()
      await this.#files.mkdir(`${this.#dir}/state`, 0o700)
    })()
    return this.#prepared
  }
}

interface Wiring {
  /** Standard input, output and error of crun; closed here once it has them. */
  readonly theirs: readonly number[]
  io(): Promise<ContainerIo>
  abandon(): void
}

function wirePipes(stdin: boolean): Wiring {
  const input = stdin ? pipe('write') : undefined
  const output = pipe('read')
  const errors = pipe('read')
  const streams: { stdin: ByteStream | undefined; stdout: ByteStream; stderr: ByteStream } = {
    stdin: input && new FdStream(input.ours, 'writer'),
    stdout: new FdStream(output.ours, 'reader'),
    stderr: new FdStream(errors.ours, 'reader'),
  }
  return {
    theirs: [input?.theirs ?? openNull(), output.theirs, errors.theirs],
    io: async () => ({ ...streams, terminal: undefined, resize: () => undefined }),
    abandon: () => {
      streams.stdin?.destroy()
      streams.stdout.destroy()
      streams.stderr.destroy()
    },
  }
}

function wireTerminal(socket: string): Wiring {
  const listener = listenUnix(socket)
  const terminal = (async () => {
    const connection = await listener.accept()
    return connection === null ? undefined : new FdStream(await receiveDescriptor(connection), 'terminal')
  })()
  terminal.catch(() => undefined)
  return {
    theirs: [openNull(), openNull(), openNull()],
    io: async () => {
      const stream = await terminal
      listener.close()
      if (stream === undefined) throw runtimeError('console', 'no terminal was sent')
      const resize = (columns: number, rows: number) => stream.resize(columns, rows)
      return { stdin: undefined, stdout: undefined, stderr: undefined, terminal: stream, resize }
    },
    abandon: () => {
      listener.close()
      terminal.then(
        (stream) => stream?.destroy(),
        () => undefined,
      )
    },
  }
}

/** An exit status that nobody can tell any more is a failure like any other, not the agent's end. */
async function exitOf(handle: ProcessHandle): Promise<ProcessExit> {
  const code = await handle.exit().catch(() => UNKNOWN_EXIT)
  return { code, atMs: Date.now() }
}

function pidFile(scratch: string): readonly string[] {
  return [`--pid-file=${scratch}.pid`]
}

/** Exit code. Closes `stdio` in this process. */
async function spawnWith(path: string, args: readonly string[], stdio: readonly number[]): Promise<number> {
  try {
    return await new Promise((resolve, reject) => {
      const child = spawn(path, args, { env: TOOL_ENVIRONMENT, stdio: [...stdio], cwd: '/', timeout: TIMEOUT_MS })
      child.on('error', (error) => reject(runtimeError('start', errorText(error))))
      child.on('exit', (code) => resolve(code ?? 255))
    })
  } finally {
    for (const fd of stdio) closeDescriptor(fd)
  }
}

function runtimeError(what: string, text: string): UnavailableError {
  return new UnavailableError('ERR_RUNTIME', `crun ${what}: ${text.trim().slice(0, 2000)}`)
}
