/** One container: its state, its processes, and what has to be undone when it goes. */
import type { ImageConfig } from '#image/manifest/config'
import type { Files, RunningProcess } from '../platform/platform.ts'
import { AgentError, limitExceeded } from './agent-error.ts'
import { wasOomKilled } from './cgroup-stats.ts'
import { ContainerProcess } from './container-process.ts'
import { type ContainerState, type Exit, nextState, wrongState } from './container-state.ts'
import { MAX_EXECS_PER_CONTAINER, TERMINATION_MESSAGE_BYTES } from './limits.ts'
import type { OciProcess } from './oci-spec.ts'
import { stopSignal } from './signals.ts'

/** A process with the way it ended, once it has. */
export interface TrackedProcess {
  readonly process: ContainerProcess
  readonly exited: Promise<Exit>
  exit: Exit | undefined
}

export interface ContainerParts {
  /** The host's name for it. */
  readonly id: string
  /** Name in the policy. */
  readonly name: string
  /** That the policy opens for it. */
  readonly ports: readonly number[]
  /** The guest's own name: crun, directories, cgroup. */
  readonly runtimeId: string
  readonly cgroupPath: string
  /** Empty where the host is not to know. */
  readonly imageDigest: string
  readonly config: ImageConfig
  /** What exec'd processes start from. */
  readonly firstProcess: OciProcess
  readonly stdin: boolean
  /** Where its last words lie; undefined where the policy lets none out. */
  readonly messagePath: string | undefined
  /** Mounts, directories, the policy's count: undone when the container is deleted. */
  readonly undo: AsyncDisposableStack
}

export class Container {
  readonly parts: ContainerParts
  readonly #files: Files
  readonly #first: TrackedProcess
  readonly #execs = new Map<string, TrackedProcess | 'starting'>()
  #state: ContainerState = { status: 'creating' }

  /** @param onExit called once when the first process has ended */
  constructor(parts: ContainerParts, files: Files, running: RunningProcess, onExit: (exit: Exit) => void) {
    this.parts = parts
    this.#files = files
    this.#first = this.#track(running, parts.stdin)
    this.#state = nextState(this.#state, { type: 'created', pid: running.pid })
    void this.#first.exited.then((exit) => {
      this.#state = nextState(this.#state, { type: 'exited', exit })
      onExit(exit)
    })
  }

  get state(): ContainerState {
    return this.#state
  }

  get stopSignal(): number {
    return stopSignal(this.parts.config.stopSignal)
  }

  /** The end of what it left for whoever asks why it ended; empty unless the policy lets it out. */
  async terminationMessage(): Promise<Uint8Array> {
    const { messagePath } = this.parts
    if (messagePath === undefined) return new Uint8Array()
    // How it ended must be told in any case.
    return this.#files.readEnd(messagePath, TERMINATION_MESSAGE_BYTES).catch(() => new Uint8Array())
  }

  started(atMs: number): void {
    // A process may be faster than the answer of the tool that started it.
    if (this.#state.status === 'exited') this.#state = { ...this.#state, startedAtMs: atMs }
    else this.#state = nextState(this.#state, { type: 'start', atMs })
  }

  requireStatus(what: string, ...allowed: readonly ContainerState['status'][]): void {
    if (!allowed.includes(this.#state.status)) throw wrongState(what, this.#state.status)
  }

  /** @param execId empty: the first process. @throws AgentError ERR_PROCESS_UNKNOWN */
  process(execId: string): TrackedProcess {
    const tracked = execId === '' ? this.#first : this.#execs.get(execId)
    if (tracked !== undefined && tracked !== 'starting') return tracked
    throw new AgentError('notFound', 'ERR_PROCESS_UNKNOWN', `container ${this.parts.id} has no process ${execId}`)
  }

  /** Starts a further process through `start`. @throws AgentError ERR_PROCESS_EXISTS or ERR_LIMIT */
  async exec(execId: string, stdin: boolean, start: () => Promise<RunningProcess>): Promise<ContainerProcess> {
    if (this.#execs.has(execId)) {
      throw new AgentError('failedPrecondition', 'ERR_PROCESS_EXISTS', `container ${this.parts.id} has ${execId}`)
    }
    if (this.#execs.size >= MAX_EXECS_PER_CONTAINER) throw limitExceeded('execs', MAX_EXECS_PER_CONTAINER)
    this.#execs.set(execId, 'starting')
    try {
      const tracked = this.#track(await start(), stdin)
      this.#execs.set(execId, tracked)
      return tracked.process
    } catch (error) {
      this.#execs.delete(execId)
      throw error
    }
  }

  /** Forgets an ended exec. @throws AgentError ERR_CONTAINER_STATE while it runs */
  forget(execId: string): Exit {
    const { process, exit } = this.process(execId)
    if (exit === undefined) throw wrongState('delete of a process', 'running')
    process.close()
    this.#execs.delete(execId)
    return exit
  }

  /** After the runtime has deleted it: lets go of every descriptor, mount and directory. */
  async dispose(): Promise<void> {
    this.#first.process.close()
    for (const exec of this.#execs.values()) if (exec !== 'starting') exec.process.close()
    await this.parts.undo.disposeAsync()
  }

  #track(running: RunningProcess, stdin: boolean): TrackedProcess {
    const process = new ContainerProcess(running, { stdin })
    const exited = running.exited.then(async ({ code, atMs }) => {
      // The control group may go while its file is read (ENODEV); the exit itself is known and must be told.
      const oomKilled = code > 128 && (await wasOomKilled(this.#files, this.parts.cgroupPath).catch(() => false))
      return { code, atMs, oomKilled }
    })
    const tracked: TrackedProcess = { process, exited, exit: undefined }
    void exited.then((exit) => {
      tracked.exit = exit
    })
    return tracked
  }
}
