/** All containers of the sandbox: policy before every step, one place that knows who exists. */
import type { PolicyEngine } from '#policies/engine'
import type { CreateContainerRequest, ExecProcessRequest, Resources } from '#protocol/gen/agent_pb'
import { EventKind } from '#protocol/gen/agent_pb'
import type { Platform } from '../platform/platform.ts'
import { AgentError, limitExceeded } from './agent-error.ts'
import { Container } from './container.ts'
import type { ContainerFactory } from './container-factory.ts'
import { changeLimits, freeze } from './container-limits.ts'
import type { ContainerProcess } from './container-process.ts'
import type { Exit } from './container-state.ts'
import { judging } from './denied-requests.ts'
import type { EventLog } from './events.ts'
import { MAX_CONCURRENT_CREATES, MAX_CONTAINERS } from './limits.ts'
import { execProcess } from './oci-spec.ts'
import { pullEvents } from './pull-events.ts'
import { parseContainerRequest, parseExecRequest, parseResources } from './requests.ts'
import { SIGKILL } from './signals.ts'

export interface ContainersOptions {
  readonly platform: Pick<Platform, 'runtime' | 'files' | 'clock'>
  readonly policy: PolicyEngine
  readonly factory: ContainerFactory
  readonly events: EventLog
}

export class Containers {
  readonly #options: ContainersOptions
  readonly #containers = new Map<string, Container>()
  readonly #creating = new Set<string>()
  readonly #queue: (() => void)[] = []
  #running = 0
  #sequence = 0

  constructor(options: ContainersOptions) {
    this.#options = options
  }

  /** @throws AgentError ERR_CONTAINER_UNKNOWN */
  get(id: string): Container {
    const container = this.#containers.get(id)
    if (container !== undefined) return container
    throw new AgentError('notFound', 'ERR_CONTAINER_UNKNOWN', `there is no container ${JSON.stringify(id)}`)
  }

  list(): readonly Container[] {
    return [...this.#containers.values()]
  }

  async create(message: CreateContainerRequest): Promise<Container> {
    const { request, resources } = parseContainerRequest(message)
    const { containerId } = request
    const { policy, factory, platform, events } = this.#options
    if (this.#containers.has(containerId) || this.#creating.has(containerId)) {
      throw new AgentError('failedPrecondition', 'ERR_CONTAINER_EXISTS', `there is a container ${containerId} already`)
    }
    if (this.#containers.size + this.#creating.size >= MAX_CONTAINERS) throw limitExceeded('containers', MAX_CONTAINERS)
    const admitted = judging(request, (asked) => policy.admitContainer(asked))
    await using undo = new AsyncDisposableStack()
    undo.defer(() => policy.release(containerId))
    this.#creating.add(containerId)
    await this.#turn()
    try {
      const runtimeId = `c${++this.#sequence}`
      const { terminal, stdin } = request
      const { processes } = admitted
      const targetPid = typeof processes === 'string' ? undefined : () => this.#runningPid(processes.containerId)
      const created = await factory.create(
        {
          admitted,
          runtimeId,
          targetPid,
          terminal,
          stdin,
          resources,
          onProgress: pullEvents(events, containerId, platform.clock),
          onMeasured: () => events.append({ kind: EventKind.MEASURED, containerId }),
        },
        undo,
      )
      const { image, cgroupPath, firstProcess, running, messagePath } = created
      const container = new Container(
        {
          id: containerId,
          name: admitted.rule.name,
          ports: admitted.rule.ports,
          runtimeId,
          cgroupPath,
          // What the host must not know it is not told here either.
          imageDigest: admitted.rule.sealedImage === undefined ? image.manifestDigest : '',
          config: image.config,
          firstProcess,
          stdin,
          messagePath,
          undo: undo.move(),
        },
        platform.files,
        running,
        (exit) => {
          policy.ended(containerId, exit.code)
          events.append({ kind: EventKind.EXITED, containerId, exitCode: exit.code })
        },
      )
      this.#containers.set(containerId, container)
      events.append({ kind: EventKind.CREATED, containerId })
      return container
    } finally {
      this.#creating.delete(containerId)
      this.#nextTurn()
    }
  }

  /** @throws AgentError ERR_CONTAINER_STATE when it has ended since it was admitted as a target */
  #runningPid(id: string): number {
    const container = this.get(id)
    container.requireStatus('joining its processes', 'running')
    return container.process('').process.pid
  }

  async start(id: string): Promise<Container> {
    const container = this.get(id)
    container.requireStatus('start', 'created')
    const { platform, policy, events } = this.#options
    await platform.runtime.start(container.parts.runtimeId)
    policy.started(id)
    container.started(platform.clock.now().getTime())
    events.append({ kind: EventKind.STARTED, containerId: id })
    return container
  }

  async exec(message: ExecProcessRequest): Promise<ContainerProcess> {
    const { execId, request } = parseExecRequest(message)
    const container = this.get(request.containerId)
    this.#options.policy.admitExec(request)
    container.requireStatus('exec', 'running')
    const { terminal, stdin, args } = request
    const process = JSON.stringify(execProcess(container.parts.firstProcess, args, terminal))
    return container.exec(execId, stdin, () =>
      this.#options.platform.runtime.exec(container.parts.runtimeId, process, { terminal, stdin }),
    )
  }

  /** @param execId empty: the first process. `all`: every process of the container */
  async signal(id: string, execId: string, { signal, all }: { signal: number; all: boolean }): Promise<void> {
    const container = this.get(id)
    this.#options.policy.admitSignal(id, signal, container.stopSignal)
    const target = container.process(execId)
    if (all) {
      container.requireStatus('signal', 'created', 'running')
      await this.#options.platform.runtime.killAll(container.parts.runtimeId, signal)
    } else if (!target.process.signal(signal)) {
      throw new AgentError('notFound', 'ERR_PROCESS_ENDED', 'the process has ended')
    }
  }

  /** Limits inside the guest's own; the host could as well give the guest less. */
  async update(id: string, resources: Resources | undefined): Promise<void> {
    const container = this.get(id)
    container.requireStatus('update', 'created', 'running')
    const limits = parseResources(resources)
    this.#options.policy.admitLimits(id, limits)
    await changeLimits(this.#options.platform.files, container.parts.cgroupPath, limits)
  }

  /** Holds a container still or lets it go on; the host could as well stop the whole guest. */
  async pause(id: string, paused: boolean): Promise<void> {
    const container = this.get(id)
    container.requireStatus(paused ? 'pause' : 'resume', 'running')
    await freeze(this.#options.platform.files, container.parts.cgroupPath, paused)
  }

  /** A container that runs is not deleted; one that was never started is killed first. */
  async delete(id: string): Promise<Exit> {
    const container = this.get(id)
    container.requireStatus('delete', 'created', 'exited')
    const first = container.process('')
    if (first.exit === undefined) first.process.signal(SIGKILL)
    const exit = await first.exited
    this.#containers.delete(id)
    await container.dispose()
    return exit
  }

  /** Asks every container to stop, then makes it. Resolves when none is left, or when time is up. */
  async stopAll(graceMs: number, killMs: number): Promise<void> {
    const { clock } = this.#options.platform
    const within = (ms: number) => {
      const ends = this.list().map((container) => container.process('').exited)
      return Promise.race([Promise.all(ends), clock.sleep(ms)])
    }
    for (const container of this.list()) container.process('').process.signal(container.stopSignal)
    await within(graceMs)
    for (const container of this.list()) container.process('').process.signal(SIGKILL)
    await within(killMs)
    const ended = this.list().filter((container) => container.state.status === 'exited')
    await Promise.allSettled(ended.map((container) => this.delete(container.parts.id)))
  }

  async #turn(): Promise<void> {
    if (this.#running < MAX_CONCURRENT_CREATES) this.#running++
    else await new Promise<void>((resolve) => this.#queue.push(resolve))
  }

  /** The place goes from hand to hand. */
  #nextTurn(): void {
    const next = this.#queue.shift()
    if (next === undefined) this.#running--
    else next()
  }
}
