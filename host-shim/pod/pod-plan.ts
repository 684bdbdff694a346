/** What a pod is made of on the host, and how large its VM must be. */

import type { TpmCa } from '#vmm/swtpm'
import type { Accelerator, DiskPlan, Platform, VmPlan } from '#vmm/types'

export interface PodPlan {
  /** Lower-case letters, digits and `-`; names the state directory. */
  readonly id: string
  readonly platform: Platform
  readonly accelerator: Accelerator
  /** Files of a guest build, and the command line that goes with them. */
  readonly guest: {
    readonly kernel: string
    readonly root: string
    readonly commandLine: string
    /** For platform `tpm`. */
    readonly firmware?: string
  }
  readonly vcpus: number
  readonly memoryMib: number
  /** Sparse: it takes what is written. */
  readonly scratchMib: number
  /** Block devices of the host that the guest gets beside its own disks. */
  readonly devices?: readonly DiskPlan[]
  /** TOML, verbatim; public, since the host reads it. */
  readonly initdata: Uint8Array
  readonly network: VmPlan['network']
  /** Path of the network namespace that the VM's process runs in; absent: the owner's. */
  readonly networkNamespace?: string
  /** For platform `tpm`: a new TPM is made for the pod and signed by this CA. */
  readonly tpmCa?: TpmCa
  /** Shown by `caisson ps`: image, name. Never secrets: the record is a plain file. */
  readonly labels?: Readonly<Record<string, string>>
}

export interface ContainerLimits {
  /** Memory limit of the container; the default stands for "none given". MiB. */
  readonly memoryMib?: number
  /** CPUs, may be fractional. */
  readonly cpus?: number
}

/** Kernel, page cache of the root filesystem, PID 1 and agent. MiB. */
export const GUEST_OVERHEAD_MIB = 256
export const DEFAULT_CONTAINER_MIB = 512
/** Room for images (their uncompressed tars and indexes) and writable layers. MiB. */
export const DEFAULT_SCRATCH_MIB = 4096

/** The one formula for the size of a VM: the sum of the limits and the overhead. */
export function vmSize(containers: readonly ContainerLimits[]): { readonly memoryMib: number; readonly vcpus: number } {
  const memoryMib = containers.reduce(
    (sum, { memoryMib = DEFAULT_CONTAINER_MIB }) => sum + memoryMib,
    GUEST_OVERHEAD_MIB,
  )
  const cpus = containers.reduce((sum, { cpus: given = 1 }) => sum + given, 0)
  return { memoryMib: Math.ceil(memoryMib), vcpus: Math.max(1, Math.ceil(cpus)) }
}
