import type { DirectBoot } from '#attestation/measure/snp/kernel-hashes'
import {
  firmwareDigest,
  furtherVcpuDigest,
  measureSnpLaunch,
  type SnpLaunch,
  type SnpMeasurement,
  type VcpuRange,
} from '#attestation/measure/snp/launch-digest'
import { defaultSnpId } from '#attestation/measure/snp/reference-values'
import type { Vmm } from '#attestation/measure/snp/save-area'
import { measureSevLaunch } from '#attestation/measure/snp/sev-digest'
import { signatureOfVcpuType } from '#attestation/measure/snp/vcpu-types'
import { fromHex, toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { EXIT_YES } from '../exit-code.ts'
import { readUserFile } from '../files.ts'

const MAX_VCPUS = 4096
const VMMS: readonly Vmm[] = ['qemu', 'ec2', 'gce']
const MODES = ['snp', 'sev-es', 'sev'] as const

export const measureSnp: CommandSpec = {
  path: 'measure snp',
  summary:
    'Predicts the launch digest of an SEV-SNP guest (MEASUREMENT of its reports) from firmware, kernel, initrd, command line and\nvCPUs, before anything boots. A range of vCPU counts is measured in one pass. The generations before it, SEV-ES and SEV, are\nmeasured with --mode.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    ovmf: { type: 'string', placeholder: 'FILE', help: 'firmware image' },
    mode: { type: 'string', placeholder: MODES.join('|'), help: 'generation of the guest', default: 'snp' },
    kernel: { type: 'string', placeholder: 'FILE', help: 'kernel of a direct boot (default: none)' },
    initrd: { type: 'string', placeholder: 'FILE', help: 'initrd of a direct boot (default: empty)' },
    append: { type: 'string', placeholder: 'TEXT', help: 'kernel command line (default: empty)' },
    vcpus: { type: 'string', placeholder: 'N|N-M', help: 'number of vCPUs, or a range', default: '1' },
    'vcpu-type': { type: 'string', placeholder: 'NAME', help: 'QEMU’s name of the CPU model: EPYC-v4, EPYC-Milan, …' },
    'vcpu-sig': { type: 'string', placeholder: 'HEX', help: 'EAX of CPUID leaf 1, instead of --vcpu-type' },
    'guest-features': { type: 'string', placeholder: 'HEX', help: 'SEV_FEATURES of the vCPUs', default: '0x1' },
    'vmm-type': { type: 'string', placeholder: VMMS.join('|'), help: 'who starts the guest', default: 'qemu' },
    'ovmf-hash': { type: 'string', placeholder: 'HEX', help: 'ovmf_hash of an earlier run, to skip hashing the image' },
    svsm: { type: 'string', placeholder: 'FILE', help: 'SVSM that starts first, below the firmware' },
    id: { type: 'string', placeholder: 'NAME', help: 'name of the reference values (default: from the digests)' },
    'vars-size': {
      type: 'string',
      placeholder: 'BYTES',
      help: 'variable store between SVSM and firmware',
      default: '0',
    },
  },
  examples: [
    'caisson measure snp --ovmf OVMF.fd --vcpus 2 --vcpu-type EPYC-v4',
    'caisson measure snp --ovmf AmdSev.fd --kernel vmlinuz --initrd initrd.img --append "console=ttyS0" --vcpus 1-64 --vcpu-type EPYC-Milan --json',
  ],
  run: async (invocation) => {
    const firmware = readUserFile(invocation.required('ovmf'), 'firmware')
    const mode = choice(invocation, 'mode', MODES)
    if (mode === 'snp') {
      const digest = invocation.string('ovmf-hash')
      const ovmfHash = digest === undefined ? firmwareDigest(firmware) : fromHex(digest, '--ovmf-hash')
      const launch = launchOf(invocation, firmware, ovmfHash)
      const measurements = measureSnpLaunch(launch, vcpuRange(invocation.required('vcpus')))
      print(invocation, measurements, referenceMembers(invocation, launch, measurements))
    } else {
      print(invocation, measureEarlier(invocation, firmware, mode), {})
    }
    return EXIT_YES
  },
}

/** What makes the output a document that `caisson verifier reference-value register` takes as it is. */
function referenceMembers(
  invocation: Invocation,
  launch: SnpLaunch,
  measurements: readonly SnpMeasurement[],
): Record<string, string | number> {
  const further = furtherVcpuDigest(launch)
  const variants = measurements.map(({ vcpus, measurement }) => ({ vcpus, measurement: toHex(measurement) }))
  return {
    version: 1,
    platform: 'snp',
    id: invocation.string('id') ?? defaultSnpId(variants),
    ovmf_hash: toHex(launch.firmwareDigest ?? new Uint8Array()),
    ...(further === undefined ? {} : { further_vcpu: toHex(further) }),
    ...(launch.boot === undefined ? {} : { cmdline: launch.boot.cmdline }),
  }
}

function launchOf(invocation: Invocation, firmware: Uint8Array, ovmfHash: Uint8Array): SnpLaunch {
  const svsm = invocation.string('svsm')
  return {
    firmware,
    firmwareDigest: ovmfHash,
    ...directBoot(invocation),
    ...(svsm === undefined
      ? {}
      : { svsm: { image: readUserFile(svsm, 'SVSM'), varsBytes: invocation.integer('vars-size', 0, 2 ** 26) } }),
    vcpuSignature: vcpuSignature(invocation),
    features: word(invocation.required('guest-features'), '--guest-features', 16),
    vmm: choice(invocation, 'vmm-type', VMMS),
  }
}

/** Plain SEV does not measure vCPUs, so their number changes nothing. */
function measureEarlier(invocation: Invocation, firmware: Uint8Array, mode: 'sev-es' | 'sev'): SnpMeasurement[] {
  const { first, last } = vcpuRange(invocation.required('vcpus'))
  const boot = directBoot(invocation)
  const vmm = choice(invocation, 'vmm-type', VMMS)
  return Array.from({ length: last - first + 1 }, (_, index) => {
    const vcpus = first + index
    const es = mode === 'sev' ? {} : { es: { vcpus, vcpuSignature: vcpuSignature(invocation), vmm } }
    return { vcpus, measurement: measureSevLaunch({ firmware, ...boot, ...es }) }
  })
}

/** One object for a number of vCPUs, a list for a range. */
function print(
  invocation: Invocation,
  measurements: readonly SnpMeasurement[],
  more: Readonly<Record<string, string | number>>,
): void {
  const list = measurements.map(({ vcpus, measurement }) => ({ vcpus, measurement: toHex(measurement) }))
  const ranged = invocation.required('vcpus').includes('-')
  const lines = list.map(({ vcpus, measurement }) => (ranged ? `${vcpus} ${measurement}` : measurement))
  const result = ranged ? { measurements: list } : list[0]
  invocation.out.result({ ...result, ...more }, lines.join('\n'))
}

function directBoot(invocation: Invocation): { readonly boot?: DirectBoot } {
  const kernel = invocation.string('kernel')
  const initrd = invocation.string('initrd')
  const cmdline = invocation.string('append')
  if (kernel !== undefined) {
    const initrdFile = initrd === undefined ? {} : { initrd: readUserFile(initrd, 'initrd') }
    return { boot: { kernel: readUserFile(kernel, 'kernel'), ...initrdFile, cmdline: cmdline ?? '' } }
  }
  if (initrd === undefined && cmdline === undefined) return {}
  throw usage('--initrd and --append are measured with --kernel')
}

function vcpuRange(text: string): VcpuRange {
  const [, from = '', to = from] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(text) ?? []
  const range = { first: Number(from), last: Number(to) }
  if (from !== '' && range.first >= 1 && range.first <= range.last && range.last <= MAX_VCPUS) return range
  throw usage(`--vcpus is ${JSON.stringify(text)}, expected a number or a range like 1-64, from 1 to ${MAX_VCPUS}`)
}

function vcpuSignature(invocation: Invocation): number {
  const signature = invocation.string('vcpu-sig')
  const type = invocation.string('vcpu-type')
  if (signature !== undefined && type === undefined) return Number(word(signature, '--vcpu-sig', 8))
  if (signature === undefined && type !== undefined) return signatureOfVcpuType(type)
  // Other VMMs put a constant there.
  if (signature === undefined && type === undefined && invocation.string('vmm-type') !== 'qemu') return 0
  throw usage('either --vcpu-type or --vcpu-sig is needed')
}

function choice<const Choice extends string>(invocation: Invocation, name: string, choices: readonly Choice[]): Choice {
  const text = invocation.required(name)
  const chosen = choices.find((candidate) => candidate === text.toLowerCase())
  if (chosen === undefined) throw usage(`--${name} is ${JSON.stringify(text)}, expected ${choices.join(', ')}`)
  return chosen
}

/** Hexadecimal with or without 0x. */
function word(text: string, name: string, maxDigits: number): bigint {
  const [, digits = ''] = /^(?:0x)?([0-9a-f]+)$/i.exec(text) ?? []
  if (digits !== '' && digits.length <= maxDigits) return BigInt(`0x${digits}`)
  throw usage(`${name} is ${JSON.stringify(text)}, expected up to ${maxDigits} hexadecimal digits`)
}

function usage(problem: string): UsageError {
  return new UsageError('ERR_USAGE', `caisson measure snp: ${problem}`, { hint: 'See `caisson measure snp --help`.' })
}
