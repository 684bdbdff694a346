/**
 * Chooses between KVM and TCG (QEMU's own emulation). `/dev/kvm` alone proves nothing: on some nested hosts it opens and a
 * stock kernel then hangs, so the choice rests on the probe of the native part.
 */
import { type KvmProbe, probeKvm } from '#native/host/index'
import { UnavailableError } from '#protocol/errors'
import type { Accelerator, AcceleratorChoice } from '../types.ts'

export interface ChosenAccelerator {
  readonly accelerator: Accelerator
  readonly reason: string
}

/** @throws UnavailableError ERR_KVM_UNUSABLE when KVM was demanded and is not there, ERR_KVM_PROBE */
export async function chooseAccelerator(
  choice: AcceleratorChoice,
  probe: () => Promise<KvmProbe> = probeKvm,
): Promise<ChosenAccelerator> {
  if (choice === 'tcg') return { accelerator: 'tcg', reason: 'asked for' }
  const { usable, reason } = await probe()
  if (usable) return { accelerator: 'kvm', reason }
  if (choice === 'auto') return { accelerator: 'tcg', reason }
  throw new UnavailableError('ERR_KVM_UNUSABLE', `KVM cannot be used on this machine: ${reason}`, {
    hint: 'Use --accel auto or --accel tcg, or enable virtualisation in the firmware or the outer hypervisor',
  })
}
