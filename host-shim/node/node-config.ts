/** How a node runs its pods; `caisson node serve` makes it from its options. */
import type { TpmCa } from '#vmm/swtpm'
import type { Accelerator, Platform } from '#vmm/types'

export interface GuestFiles {
  readonly kernel: string
  readonly root: string
  readonly commandLine: Readonly<Record<Platform, string>>
  readonly firmware: string
}

export interface NodeConfig {
  /** Records and machines. Short: socket paths end at 107 bytes. */
  readonly stateRoot: string
  /** Where shims and relays connect. */
  readonly socket: string
  /** Where the sockets that containerd talks to lie. */
  readonly shimSocketDir: string
  readonly podProgram: string
  readonly qemuProgram?: string | undefined
  /** Of pods that do not say. */
  readonly platform: Platform
  readonly accelerator: Accelerator
  readonly guest: () => Promise<GuestFiles>
  /** Makes or opens the CA that signs software TPMs, for platform `tpm`. */
  readonly tpmCa: () => Promise<TpmCa>
  readonly scratchMib: number
  /** The kubelet's directory: pods and their volumes. */
  readonly kubeletRoot: string
  /** How often to look for what containerd has forgotten, milliseconds; removed is what two looks find so. Default 30000. */
  readonly abandonedMs?: number
  /** Tells the operator; one line each. */
  readonly log: (line: string) => void
}
