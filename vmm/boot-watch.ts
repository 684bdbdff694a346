/**
 * Watches a VM from its start until the agent answers, and names the stage that hung or failed. What it sees is written by
 * the guest or by firmware, so it serves diagnosis only: a guest that lies about its stage fools nobody but its operator.
 */
import { UnavailableError } from '#protocol/errors'
import type { Accelerator, Platform, Vm, VmExit } from './types.ts'

/** In this order; each is left by the sign that stands beside it. `firmware` is skipped on direct boot. */
export type BootStage =
  | 'vmm' // the monitor answers on its control connection
  | 'firmware' // the firmware opened its console, its last step before the kernel
  | 'kernel' // PID 1 says `init-start`
  | 'init' // PID 1 says `agent-start`
  | 'agent' // the agent answers over vsock

export interface StageTime {
  readonly stage: BootStage
  readonly durationMs: number
}

/** Stage `vmm` has the driver's own limit. */
export type StageLimits = Readonly<Record<Exclude<BootStage, 'vmm'>, number>>

/** Milliseconds without any progress. Emulation is 10 to 50 times slower, and test machines are shared. */
export const STAGE_LIMITS: Readonly<Record<Accelerator, StageLimits>> = {
  kvm: { firmware: 60_000, kernel: 30_000, init: 30_000, agent: 60_000 },
  tcg: { firmware: 240_000, kernel: 240_000, init: 180_000, agent: 240_000 },
}

/** `ERR_BOOT_STALLED`: no progress in `stage`; `ERR_VM_EXITED`: the VM ended in `stage`. */
export class BootError extends UnavailableError {
  readonly stage: BootStage
  /** Console codes seen, oldest first. */
  readonly consoleCodes: readonly string[]

  constructor(
    code: 'ERR_BOOT_STALLED' | 'ERR_VM_EXITED',
    message: string,
    details: { stage: BootStage; consoleCodes: readonly string[]; hint: string; cause?: unknown },
  ) {
    super(code, message, 'cause' in details ? { hint: details.hint, cause: details.cause } : { hint: details.hint })
    this.stage = details.stage
    this.consoleCodes = details.consoleCodes
  }
}

export interface BootWatch<T> {
  readonly platform: Platform
  readonly accelerator: Accelerator
  launch(): Promise<Vm>
  /** Resolves when the agent answered; called as soon as the monitor runs, so it must retry. */
  connectAgent(vm: Vm, signal: AbortSignal): Promise<T>
  /** Called when a stage begins. `atMs` counts from the start of the watch. */
  readonly onStage?: ((stage: BootStage, atMs: number) => void) | undefined
  readonly limits?: Partial<StageLimits> | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * The VM is stopped when this throws.
 * @throws BootError and whatever `launch` throws
 */
export async function watchBoot<T>(
  watch: BootWatch<T>,
): Promise<{ readonly vm: Vm; readonly agent: T; readonly stages: readonly StageTime[] }> {
  const progress = new Progress(watch)
  const vm = await watch.launch()
  const abort = new AbortController()
  try {
    progress.enter(watch.platform === 'tpm' ? 'firmware' : 'kernel')
    vm.console.onProgress(() => progress.readConsole(vm))
    // A fast guest has spoken already.
    progress.readConsole(vm)
    const agent = await Promise.race([
      watch.connectAgent(vm, abort.signal),
      progress.stalled.then((limitMs) => Promise.reject(stalledError(progress.stage, limitMs, vm))),
      vm.process.exited.then((exit) => Promise.reject(exitedError(progress.stage, exit, vm))),
      aborted(watch.signal),
    ])
    return { vm, agent, stages: progress.finish() }
  } catch (error) {
    await vm.stop({ graceMs: 1000 })
    throw error
  } finally {
    progress.close()
    abort.abort()
  }
}

class Progress<T> {
  readonly #limits: StageLimits
  readonly #onStage: BootWatch<T>['onStage']
  readonly #started = performance.now()
  readonly #times: StageTime[] = []
  #stage: BootStage = 'vmm'
  #entered = this.#started
  #codesSeen = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #closed = false
  #stall: (limitMs: number) => void = () => undefined

  /** Resolves with the limit that passed. */
  readonly stalled: Promise<number>

  constructor(watch: BootWatch<T>) {
    this.#limits = { ...STAGE_LIMITS[watch.accelerator], ...watch.limits }
    this.#onStage = watch.onStage
    this.stalled = new Promise((resolve) => {
      this.#stall = resolve
    })
    this.#onStage?.('vmm', 0)
  }

  get stage(): BootStage {
    return this.#stage
  }

  enter(stage: Exclude<BootStage, 'vmm'>): void {
    const now = performance.now()
    this.#times.push({ stage: this.#stage, durationMs: now - this.#entered })
    this.#stage = stage
    this.#entered = now
    this.#onStage?.(stage, now - this.#started)
    this.#restartTimer(stage)
  }

  /** Only new codes count as progress: a guest that writes without end must not look alive. */
  readConsole(vm: Vm): void {
    if (this.#closed) return
    const { codes, spoke } = vm.console
    if (this.#stage === 'firmware' && spoke) this.enter('kernel')
    for (const code of codes.slice(this.#codesSeen)) {
      if (code === 'init-start' && (this.#stage === 'firmware' || this.#stage === 'kernel')) this.enter('init')
      else if (code === 'agent-start' && this.#stage === 'init') this.enter('agent')
      else if (this.#stage !== 'vmm') this.#restartTimer(this.#stage)
    }
    this.#codesSeen = codes.length
  }

  finish(): readonly StageTime[] {
    this.#times.push({ stage: this.#stage, durationMs: performance.now() - this.#entered })
    return this.#times
  }

  /** The console goes on talking after the boot; it must not start the watch again. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#stall = () => undefined
  }

  #restartTimer(stage: Exclude<BootStage, 'vmm'>): void {
    clearTimeout(this.#timer)
    if (this.#closed) return
    const limitMs = this.#limits[stage]
    this.#timer = setTimeout(() => this.#stall(limitMs), limitMs)
  }
}

function stalledError(stage: BootStage, limitMs: number, vm: Vm): BootError {
  const codes = vm.console.codes
  return new BootError(
    'ERR_BOOT_STALLED',
    `the VM made no progress in stage "${stage}" for ${limitMs / 1000} s (console codes: ${codesText(codes)})`,
    { stage, consoleCodes: codes, hint: STALL_HINTS[stage] },
  )
}

function exitedError(stage: BootStage, exit: VmExit, vm: Vm): BootError {
  const codes = vm.console.codes
  const why = vm.shutdownReason ?? (exit.signal === undefined ? `exit code ${exit.code}` : `signal ${exit.signal}`)
  const stderr = exit.stderr.trim() === '' ? '' : `; QEMU wrote: ${exit.stderr.trim()}`
  return new BootError(
    'ERR_VM_EXITED',
    `the VM ended in stage "${stage}" (${why}; console codes: ${codesText(codes)})${stderr}`,
    { stage, consoleCodes: codes, hint: exitHint(stage, codes, why) },
  )
}

function codesText(codes: readonly string[]): string {
  return codes.length === 0 ? 'none' : codes.slice(-8).join(', ')
}

const STALL_HINTS: Readonly<Record<BootStage, string>> = {
  vmm: 'QEMU runs but does not answer; look at the load of this machine',
  firmware:
    'The firmware did not start the kernel: check that the firmware file is OVMF without secure boot and the kernel an EFI image. With --accel kvm on a nested host, try --accel tcg',
  kernel:
    'The kernel did not reach PID 1. With --accel kvm on a nested host, try --accel tcg; else read console.log in the state directory',
  init: 'PID 1 started and did not start the agent; read console.log in the state directory',
  agent:
    'The agent was started and does not answer over vsock; under emulation and load this can be slowness alone: try again, or give the VM more memory',
}

/** Codes of PID 1 that say more than the stage does. */
const CODE_HINTS: Readonly<Record<string, string>> = {
  'initdata-missing': 'The guest found no initdata disk; check the file that was given as initdata',
  'initdata-invalid': 'The initdata disk does not have the form CSINITD1; write it again with this version',
  'agent-died': 'The agent ended by itself; usual causes are too little memory and a guest image of another version',
}

function exitHint(stage: BootStage, codes: readonly string[], why: string): string {
  // SIGTERM, SIGKILL and QMP's quit come from this side.
  if (/^(?:host-|signal )/.test(why)) {
    return 'The VM was ended from the host: by caisson stop, by a signal, or by the kernel when memory ran out (see dmesg)'
  }
  const told = codes.toReversed().find((code) => Object.hasOwn(CODE_HINTS, code))
  const hint = told === undefined ? undefined : CODE_HINTS[told]
  return hint ?? EXIT_HINTS[stage]
}

const EXIT_HINTS: Readonly<Record<BootStage, string>> = {
  vmm: 'QEMU ended at once; its own message is above',
  firmware: 'The firmware gave up: the firmware file or the kernel image is damaged, or the TPM did not answer',
  kernel:
    'The kernel stopped before PID 1: the root filesystem does not match the hash on the measured command line, or the kernel image or the command line was changed. Build the guest again, or restore the files from the image you measured',
  init: 'PID 1 gave up or the kernel panicked: a block of the root filesystem does not match its hash, or a disk is missing',
  agent:
    'The VM ended while the agent was starting: a block of the root filesystem does not match its hash, or memory ran out',
}

function aborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal?.aborted === true) reject(signal.reason)
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
}
