/**
 * What a virtual machine monitor is asked for, and what it gives. QEMU is the first driver; nothing here names it.
 * Everything in a plan is the host's own: paths and sizes. The guest does not believe any of it.
 */

/** `tpm`: firmware and a software TPM (development); `none`: direct boot, no evidence, for functional tests. */
export type Platform = 'tpm' | 'none'

/** `auto` takes KVM where the CPU really offers it. */
export type AcceleratorChoice = 'auto' | 'kvm' | 'tcg'
export type Accelerator = 'kvm' | 'tcg'

export interface DiskPlan {
  /** virtio serial number, under which the guest finds the disk; at most 20 characters. */
  readonly serial: 'root' | 'initdata' | 'scratch' | `block-${number}`
  readonly path: string
  readonly readOnly: boolean
  /** A block device of the host, whose content outlives the VM; else a file. */
  readonly device?: boolean
}

/** A tap device that exists, in the network namespace that the monitor runs in. */
export interface TapNetwork {
  readonly tap: string
  /** Of the guest's device. */
  readonly mac: string
}

export interface VmPlan {
  /** Names the VM in process lists: letters, digits, `-`, `_`, `.`. */
  readonly id: string
  readonly platform: Platform
  readonly accelerator: Accelerator
  readonly kernel: string
  /** Measured byte for byte; comes from the guest image's manifest. */
  readonly commandLine: string
  /** Firmware volume, for platform `tpm`. */
  readonly firmware?: string
  /** In order: the first is /dev/vda. */
  readonly disks: readonly DiskPlan[]
  readonly vcpus: number
  readonly memoryMib: number
  /** `user`: the monitor's own user-mode network; `none`: no device at all. */
  readonly network: 'user' | 'none' | TapNetwork
  /** Unix socket of the vhost-user-vsock backend, which must listen before the VM starts; no vsock device when absent. */
  readonly vsockSocket?: string
  /** Unix socket of the software TPM's control channel, for platform `tpm`. */
  readonly tpmSocket?: string
  /** Directory for the sockets between us and the monitor; private to this VM, short (socket paths end at 107 bytes). */
  readonly runDir: string
}

/** How a VM process ended. */
export interface VmExit {
  readonly code: number | undefined
  readonly signal: string | undefined
  /** Last lines of the monitor's standard error. */
  readonly stderr: string
}

/** The running monitor process, however it was started. */
export interface VmProcess {
  readonly pid: number
  readonly exited: Promise<VmExit>
  /** Ends the process at once. */
  kill(): void
}

/** Starts the monitor with these arguments; `argv[0]` is the program. */
export type VmLauncher = (argv: readonly string[]) => Promise<VmProcess>

export interface LaunchOptions {
  /** Starts the monitor's process: `caisson-pod` in production, a plain child in tests. */
  readonly launch: VmLauncher
  /** The monitor's program, when it is not the one on PATH. */
  readonly program?: string
  /** Receives what the guest writes to its serial console, bounded. */
  readonly consoleFile?: string
  /**
   * Called with true when the guest is stopped because the host has no room for what it writes, and with false when it goes
   * on because there is some.
   */
  readonly onDiskFull?: (full: boolean) => void
}

/** A virtual machine monitor. QEMU is the first driver; whoever needs another VMM writes another one of these. */
export interface Vmm {
  readonly name: string
  /** Resolves when the monitor can be controlled and the guest's CPUs run. */
  launch(plan: VmPlan, options: LaunchOptions): Promise<Vm>
}

/** Why the guest stopped, as the monitor reports it: "guest-shutdown", "guest-reset", "guest-panic", "host-qmp-quit"… */
export type ShutdownReason = string

export interface Vm extends AsyncDisposable {
  readonly process: VmProcess
  /** Set once the guest asked to stop or was stopped. */
  readonly shutdownReason: ShutdownReason | undefined
  readonly console: ConsoleLog
  /** The monitor's own control connection has been lost although the process lives. */
  readonly controlLost: Promise<void>
  /** Asks the monitor to end, then kills it. Resolves when the process is gone. */
  stop(options?: { readonly graceMs?: number }): Promise<VmExit>
}

/** The serial console, which a hostile guest writes: bounded, and only enumerated codes of it are believed to be codes. */
export interface ConsoleLog {
  /** Codes of `caisson: <code>` lines in the order they came, at most 256. */
  readonly codes: readonly string[]
  /** Whether anything was written at all: firmware opens its console just before it starts the kernel. */
  readonly spoke: boolean
  /** The last printable characters, for a diagnosis; quote it, it is the guest's text. */
  tail(): string
  /** Called after each chunk. */
  onProgress(listener: () => void): void
}
