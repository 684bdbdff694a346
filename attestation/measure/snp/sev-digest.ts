/** Launch digests of the generations before SEV-SNP: one SHA-256 over what the VMM encrypted (AMD 55766, LAUNCH_MEASURE). */
import { createHash } from 'node:crypto'
import { UsageError } from '#protocol/errors'
import { type DirectBoot, kernelHashTable } from './kernel-hashes.ts'
import { RESET_EIP, saveArea, type Vmm } from './save-area.ts'
import { parseSevFirmware } from './sev-firmware.ts'

export interface SevLaunch {
  readonly firmware: Uint8Array
  readonly boot?: DirectBoot
  /** SEV-ES also encrypts the vCPUs' start states; undefined for plain SEV. */
  readonly es?: { readonly vcpus: number; readonly vcpuSignature: number; readonly vmm?: Vmm }
}

/** 32 bytes. Throws `MalformedError` ERR_SNP_FIRMWARE, `UsageError` ERR_SNP_KERNEL_HASHES, ERR_SNP_RESET_BLOCK. */
export function measureSevLaunch({ firmware, boot, es }: SevLaunch): Uint8Array {
  const { image, hashTable, apResetEip } = parseSevFirmware(firmware)
  const digest = createHash('sha256').update(image)
  if (boot !== undefined) {
    if (hashTable === undefined) {
      throw new UsageError('ERR_SNP_KERNEL_HASHES', 'a kernel is given, but the firmware has no place for its hash', {
        hint: 'Use an OVMF that checks kernels (OvmfPkg/AmdSev), or boot the kernel from a disk and leave --kernel away.',
      })
    }
    digest.update(kernelHashTable(boot))
  }
  for (let vcpu = 0; vcpu < (es?.vcpus ?? 0); vcpu++) {
    const eip = vcpu === 0 ? RESET_EIP : apResetEip
    if (eip === undefined)
      throw new UsageError('ERR_SNP_RESET_BLOCK', 'firmware does not say where further vCPUs start')
    digest.update(saveArea({ eip, features: 0n, signature: es?.vcpuSignature ?? 0, vmm: es?.vmm ?? 'qemu' }))
  }
  return new Uint8Array(digest.digest())
}
