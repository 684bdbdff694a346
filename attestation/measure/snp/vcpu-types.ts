/** QEMU's CPU models for EPYC and the signature that CPUID leaf 1 gives for them: a vCPU starts with it in EDX. */
import { UsageError } from '#protocol/errors'

interface CpuIdentity {
  readonly family: number
  readonly model: number
  readonly stepping: number
}

const NAPLES: CpuIdentity = { family: 23, model: 1, stepping: 2 }
const ROME: CpuIdentity = { family: 23, model: 49, stepping: 0 }
const MILAN: CpuIdentity = { family: 25, model: 1, stepping: 1 }
const GENOA: CpuIdentity = { family: 25, model: 17, stepping: 0 }
const TURIN: CpuIdentity = { family: 26, model: 0, stepping: 0 }

/** Each model and the number of its versions (QEMU target/i386/cpu.c). */
const MODELS: readonly (readonly [name: string, cpu: CpuIdentity, versions: number])[] = [
  ['EPYC', NAPLES, 5],
  ['EPYC-Rome', ROME, 5],
  ['EPYC-Milan', MILAN, 3],
  ['EPYC-Genoa', GENOA, 2],
  ['EPYC-Turin', TURIN, 1],
]

const SIGNATURES: ReadonlyMap<string, number> = new Map([
  ['epyc-ibpb', vcpuSignature(NAPLES)],
  ...MODELS.flatMap(([name, cpu, versions]) =>
    [name, ...Array.from({ length: versions }, (_, index) => `${name}-v${index + 1}`)].map(
      (alias): [string, number] => [alias.toLowerCase(), vcpuSignature(cpu)],
    ),
  ),
])

/** EAX of CPUID leaf 1 (AMD 25481): low family, model and stepping with their extensions. */
export function vcpuSignature({ family, model, stepping }: CpuIdentity): number {
  const low = Math.min(family, 15)
  return ((family - low) << 20) | ((model >> 4) << 16) | (low << 8) | ((model & 15) << 4) | stepping
}

/** Throws `UsageError` ERR_SNP_VCPU_TYPE. */
export function signatureOfVcpuType(name: string): number {
  const signature = SIGNATURES.get(name.toLowerCase())
  if (signature !== undefined) return signature
  throw new UsageError('ERR_SNP_VCPU_TYPE', `vCPU type ${JSON.stringify(name)} is not known`, {
    hint: `Known are EPYC-IBPB and ${MODELS.map(([model, , versions]) => `${model}[-v1..${versions}]`).join(', ')}; give others by their signature (--vcpu-sig).`,
  })
}
