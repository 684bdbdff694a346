/**
 * One pod on the host, from its state directory to its end: disks, software TPM, `caisson-pod` with QEMU, the agent.
 * Whatever is started is ended in reverse order, also when the start fails half-way; what a crash leaves behind is
 * removed by `reconcilePods`.
 */
import { cp, rm } from 'node:fs/promises'
import { UsageError } from '#protocol/errors'
import { type BootStage, type StageLimits, type StageTime, watchBoot } from '#vmm/boot-watch'
import { qemu } from '#vmm/qemu/driver'
import { manufactureTpm, startTpm } from '#vmm/swtpm'
import type { DiskPlan, Vm, VmExit } from '#vmm/types'
import { AgentClient } from './agent-client.ts'
import { createScratchDisk, writeInitdataDisk } from './disks.ts'
import type { GuestAccess } from './guest-streams.ts'
import type { PodPlan } from './pod-plan.ts'
import { type PodProcess, startPodProcess } from './pod-process.ts'
import { createPodState, type PodPaths, podPaths, reconcilePods, removePod } from './state-dir.ts'

/** `disks` and `tpm` are the host's own; the rest is the VM's. */
export type PodStage = 'disks' | 'tpm' | BootStage

export interface StartPodOptions {
  /** Pods lie in `<stateRoot>/pods/`. Short: socket paths end at 107 bytes. */
  readonly stateRoot: string
  /** Path of the program `caisson-pod`. */
  readonly podProgram: string
  readonly qemuProgram?: string
  /** Called when a stage begins; `atMs` counts from the call of `startPod`. */
  readonly onStage?: (stage: PodStage, atMs: number) => void
  /** Called with true when the VM is stopped because the host has no room for what it writes, with false when it goes on. */
  readonly onDiskFull?: (full: boolean) => void
  readonly limits?: Partial<StageLimits>
  readonly signal?: AbortSignal
  /**
   * For pods that outlive the process that starts them: who owns the pod instead, and the FIFO that the owner holds open
   * as long as the VM shall run.
   */
  readonly owner?: { readonly pid: number; readonly leash: (directory: string) => Promise<string> }
  /** Where the console log goes when the start fails and the state directory is removed. */
  readonly keepConsoleLog?: string
}

export interface StopOptions {
  /** How long the guest may take to end its containers before the VM is killed. Milliseconds, default 10000. */
  readonly graceMs?: number
}

const DEFAULT_GRACE_MS = 10_000
const AGENT_RETRY_MS = 250

export class Pod implements AsyncDisposable, GuestAccess {
  readonly id: string
  readonly agent: AgentClient
  readonly vm: Vm
  readonly paths: PodPaths
  readonly stages: readonly (StageTime | { readonly stage: PodStage; readonly durationMs: number })[]
  readonly #resources: AsyncDisposableStack
  #stopped: Promise<VmExit> | undefined

  constructor(parts: {
    id: string
    agent: AgentClient
    vm: Vm
    paths: PodPaths
    stages: Pod['stages']
    resources: AsyncDisposableStack
  }) {
    this.id = parts.id
    this.agent = parts.agent
    this.vm = parts.vm
    this.paths = parts.paths
    this.stages = parts.stages
    this.#resources = parts.resources
  }

  get vsock(): string {
    return this.paths.vsock
  }

  /** Resolves when the VM is gone, asked for or not. */
  get exited(): Promise<VmExit> {
    return this.vm.process.exited
  }

  /** Asks the guest to end, waits, then ends it; removes everything the pod made. Idempotent. */
  stop(options: StopOptions = {}): Promise<VmExit> {
    this.#stopped ??= this.#stop(options.graceMs ?? DEFAULT_GRACE_MS)
    return this.#stopped
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #stop(graceMs: number): Promise<VmExit> {
    // The guest may power off before its answer is out, or not answer at all: only the VM's end counts.
    this.agent.shutdown({ timeoutMs: graceMs }).catch(() => undefined)
    let timer: ReturnType<typeof setTimeout> | undefined
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, graceMs)
    })
    await Promise.race([this.exited, patience])
    clearTimeout(timer)
    await this.#resources.disposeAsync()
    return this.exited
  }
}

/**
 * Resolves when the guest's agent answers.
 * @throws BootError ERR_BOOT_STALLED, ERR_VM_EXITED; UsageError ERR_POD_EXISTS, ERR_POD_ID, ERR_VM_PLAN, ERR_SOCKET_PATH;
 *   UnavailableError ERR_TPM_SETUP, ERR_TPM_START, ERR_PROGRAM_MISSING, ERR_POD_PROCESS, ERR_VMM_FAILED
 */
export async function startPod(plan: PodPlan, options: StartPodOptions): Promise<Pod> {
  const paths = podPaths(options.stateRoot, plan.id)
  const clock = new StageClock(options.onStage)
  // What crashed owners left goes first, so that a restart under the same id works.
  await reconcilePods(options.stateRoot)
  await using resources = new AsyncDisposableStack()
  const { id, platform, labels = {} } = plan
  await createPodState(paths, { id, platform, labels }, options.owner?.pid)
  resources.defer(() => removePod(paths))

  clock.enter('disks')
  await writeInitdataDisk(paths.initdata, plan.initdata)
  await createScratchDisk(paths.scratch, plan.scratchMib)
  if (plan.platform === 'tpm') {
    clock.enter('tpm')
    resources.use(await startPodTpm(plan, paths))
  }
  options.signal?.throwIfAborted()
  const { vm, agent } = await bootVm(plan, paths, options, clock)
  resources.defer(async () => {
    await vm.stop()
  })
  resources.defer(() => agent.close())
  return new Pod({ id: plan.id, agent, vm, paths, stages: clock.finish(), resources: resources.move() })
}

async function startPodTpm(plan: PodPlan, paths: PodPaths): Promise<AsyncDisposable> {
  if (plan.tpmCa === undefined) {
    throw new UsageError('ERR_VM_PLAN', 'platform tpm needs a TPM CA', { hint: 'Make one with createTpmCa' })
  }
  await manufactureTpm({ stateDir: paths.tpmState, ca: plan.tpmCa, name: plan.id })
  return startTpm({ stateDir: paths.tpmState, socket: paths.tpmSocket })
}

async function bootVm(
  plan: PodPlan,
  paths: PodPaths,
  options: StartPodOptions,
  clock: StageClock,
): Promise<{ vm: Vm; agent: AgentClient }> {
  let podProcess: PodProcess | undefined
  const disks: DiskPlan[] = [
    { serial: 'root', path: plan.guest.root, readOnly: true },
    { serial: 'initdata', path: paths.initdata, readOnly: true },
    { serial: 'scratch', path: paths.scratch, readOnly: false },
    ...(plan.devices ?? []),
  ]
  try {
    return await watchBoot({
      platform: plan.platform,
      accelerator: plan.accelerator,
      limits: options.limits,
      signal: options.signal,
      onStage: (stage) => clock.enter(stage),
      launch: () =>
        qemu.launch(
          {
            id: plan.id,
            platform: plan.platform,
            accelerator: plan.accelerator,
            kernel: plan.guest.kernel,
            commandLine: plan.guest.commandLine,
            ...(plan.platform === 'tpm' ? { tpmSocket: paths.tpmSocket } : {}),
            ...(plan.guest.firmware === undefined || plan.platform !== 'tpm' ? {} : { firmware: plan.guest.firmware }),
            disks,
            vcpus: plan.vcpus,
            memoryMib: plan.memoryMib,
            network: plan.network,
            vsockSocket: paths.vhost,
            runDir: paths.directory,
          },
          {
            consoleFile: paths.consoleLog,
            ...(options.onDiskFull === undefined ? {} : { onDiskFull: options.onDiskFull }),
            ...(options.qemuProgram === undefined ? {} : { program: options.qemuProgram }),
            launch: async (argv) => {
              const leash = await options.owner?.leash(paths.directory)
              podProcess = await startPodProcess({
                ...(leash === undefined ? {} : { leash }),
                ...(plan.networkNamespace === undefined ? {} : { networkNamespace: plan.networkNamespace }),
                program: options.podProgram,
                stateDir: paths.directory,
                vsock: paths.vsock,
                vhost: paths.vhost,
                log: paths.vmmLog,
                argv,
              })
              return podProcess
            },
          },
        ),
      connectAgent: async (vm, signal) => {
        await podProcess?.guestConnected
        return reachAgent(paths.vsock, vm, signal)
      },
    })
  } catch (error) {
    if (options.keepConsoleLog !== undefined) {
      await rm(options.keepConsoleLog, { force: true })
      await cp(paths.consoleLog, options.keepConsoleLog).catch(() => undefined)
    }
    throw error
  }
}

/** The guest's kernel refuses connections until the agent listens, so this tries again; each console code is a good moment. */
async function reachAgent(vsock: string, vm: Vm, signal: AbortSignal): Promise<AgentClient> {
  let wake: () => void = () => undefined
  vm.console.onProgress(() => wake())
  while (true) {
    signal.throwIfAborted()
    const agent = await AgentClient.connect(vsock).catch(() => undefined)
    if (agent !== undefined) {
      const answered = await agent.getStatus({ signal }).then(
        () => true,
        () => false,
      )
      if (answered) return agent
      agent.close()
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, AGENT_RETRY_MS)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

class StageClock {
  readonly #started = performance.now()
  readonly #onStage: StartPodOptions['onStage']
  readonly #times: { stage: PodStage; durationMs: number }[] = []
  #current: { stage: PodStage; at: number } | undefined

  constructor(onStage: StartPodOptions['onStage']) {
    this.#onStage = onStage
  }

  enter(stage: PodStage): void {
    this.finish()
    const at = performance.now()
    this.#current = { stage, at }
    this.#onStage?.(stage, at - this.#started)
  }

  finish(): readonly { stage: PodStage; durationMs: number }[] {
    if (this.#current !== undefined) {
      this.#times.push({ stage: this.#current.stage, durationMs: performance.now() - this.#current.at })
      this.#current = undefined
    }
    return this.#times
  }
}
