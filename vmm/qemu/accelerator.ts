/**
 * Chooses between KVM and TCG (QEMU's own emulation). `/dev/kvm` alone proves nothing: on some nested hosts it opens and a
 * stock kernel then hangs, so the choice rests on the probe of the native part.
 */
import { UnavailableError } from '#protocol/errors'
import type { Accelerator, AcceleratorChoice } from '../types.ts'

export interface KvmVerdict {
  readonly usable: boolean
  /** Why, in words for the operator. */
  readonly reason: string
}

export interface ChosenAccelerator {
  readonly accelerator: Accelerator
  readonly reason: string
}

/** @throws UnavailableError ERR_KVM_UNUSABLE when KVM was demanded and is not there */
export function chooseAccelerator(choice: AcceleratorChoice, probe: () => KvmVerdict): ChosenAccelerator {
  if (choice === 'tcg') return { accelerator: 'tcg', reason: 'asked for' }
  const { usable, reason } = probe()
  if (usable) return { accelerator: 'kvm', reason }
  if (choice === 'auto') return { accelerator: 'tcg', reason }
  throw new UnavailableError('ERR_KVM_UNUSABLE', `KVM cannot be used on this machine: ${reason}`, {
    hint: 'Use --accel auto or --accel tcg, or enable virtualisation in the firmware or the outer hypervisor',
  })
}
