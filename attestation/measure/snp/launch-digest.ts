/**
 * The launch digest (MEASUREMENT of the attestation report) that a guest will have, computed from what the VMM loads:
 * firmware, the pages that its metadata asks for, hashes of kernel, initrd and command line, and each vCPU's start state.
 */
import { hash } from 'node:crypto'
import { UsageError } from '#protocol/errors'
import { type DirectBoot, kernelHashPage } from './kernel-hashes.ts'
import { DIGEST_BYTES, LaunchContext } from './launch-context.ts'
import { RESET_EIP, type StartState, saveArea, svsmSaveArea, type Vmm } from './save-area.ts'
import { imageGpa, type MetadataSection, PAGE_BYTES, parseSevFirmware, type SevFirmware } from './sev-firmware.ts'

/** SEV_FEATURES: SNPActive, which every SEV-SNP guest has. */
export const SNP_ACTIVE = 1n
const MAX_VCPUS = 4096

export interface SnpLaunch {
  /** OVMF image, whole pages. */
  readonly firmware: Uint8Array
  /** Digest after the firmware's own pages (`firmwareDigest`): its metadata is then read from `firmware`, its pages are not. */
  readonly firmwareDigest?: Uint8Array
  readonly boot?: DirectBoot
  /** Secure VM service module; it starts first and brings up `firmware`. */
  readonly svsm?: {
    readonly image: Uint8Array /** Bytes of variable store between them. */
    readonly varsBytes: number
  }
  /** EAX of CPUID leaf 1 of the vCPU model. */
  readonly vcpuSignature: number
  /** SEV_FEATURES of the guest. Default: SNPActive alone. */
  readonly features?: bigint
  /** Default: qemu. */
  readonly vmm?: Vmm
}

export interface VcpuRange {
  readonly first: number
  readonly last: number
}

export interface SnpMeasurement {
  readonly vcpus: number
  /** 48 bytes. */
  readonly measurement: Uint8Array
}

/**
 * One digest per number of vCPUs, in one pass: each further vCPU extends the digest of the number before.
 *
 * Throws `MalformedError` ERR_SNP_FIRMWARE, `UsageError` ERR_SNP_KERNEL_HASHES, ERR_SNP_SVSM, ERR_SNP_FEATURES,
 * ERR_VCPU_COUNT.
 */
export function measureSnpLaunch(launch: SnpLaunch, { first, last }: VcpuRange): SnpMeasurement[] {
  if (!Number.isInteger(first) || !Number.isInteger(last) || first < 1 || last < first || last > MAX_VCPUS) {
    throw new UsageError('ERR_VCPU_COUNT', `${first} to ${last} vCPUs; 1 to ${MAX_VCPUS} can be measured`)
  }
  const { context, startOf } = loadGuest(launch)
  const measurements: SnpMeasurement[] = []
  for (let vcpus = 1; vcpus <= last; vcpus++) {
    context.addSaveArea(startOf(vcpus - 1))
    if (vcpus >= first) measurements.push({ vcpus, measurement: context.digest })
  }
  return measurements
}

/**
 * SHA-384 of the save area that each vCPU after the first adds: with it, the digest for one more vCPU follows from the digest
 * for one less. Undefined for firmware that starts one vCPU only. Throws as `measureSnpLaunch`.
 */
export function furtherVcpuDigest(launch: SnpLaunch): Uint8Array | undefined {
  const { startOf } = loadGuest(launch)
  try {
    return hash('sha384', startOf(1), 'buffer')
  } catch (error) {
    if (error instanceof UsageError && error.code === 'ERR_SNP_RESET_BLOCK') return undefined
    throw error
  }
}

/** Everything but the vCPUs. */
function loadGuest(launch: SnpLaunch): { readonly context: LaunchContext; readonly startOf: SaveAreaOf } {
  const features = launch.features ?? SNP_ACTIVE
  if ((features & SNP_ACTIVE) === 0n || features < 0n || features >= 2n ** 64n) {
    throw new UsageError('ERR_SNP_FEATURES', `guest features 0x${features.toString(16)} without SNPActive (bit 0)`)
  }
  const context = new LaunchContext(launch.firmwareDigest === undefined ? undefined : seed(launch.firmwareDigest))
  const firmware = parseSevFirmware(launch.firmware)
  if (launch.firmwareDigest === undefined) context.addPages(imageGpa(firmware.image), firmware.image)
  const vmm = launch.vmm ?? 'qemu'
  const state = { features, signature: launch.vcpuSignature, vmm }
  const startOf =
    launch.svsm === undefined ? loadFirmware(context, firmware, launch, state) : loadSvsm(context, launch, state)
  return { context, startOf }
}

/** Digest after the pages of a firmware image: the same for every guest that uses it. 48 bytes. */
export function firmwareDigest(firmware: Uint8Array): Uint8Array {
  const context = new LaunchContext()
  const { image } = parseSevFirmware(firmware)
  context.addPages(imageGpa(image), image)
  return context.digest
}

type SaveAreaOf = (vcpu: number) => Uint8Array

function loadFirmware(
  context: LaunchContext,
  firmware: SevFirmware,
  launch: SnpLaunch,
  state: Omit<StartState, 'eip'>,
): SaveAreaOf {
  addSections(context, firmware, launch)
  const { apResetEip } = firmware
  const boot = saveArea({ ...state, eip: RESET_EIP })
  const application = apResetEip === undefined ? undefined : saveArea({ ...state, eip: apResetEip })
  return (vcpu) => {
    if (vcpu === 0) return boot
    if (application !== undefined) return application
    throw new UsageError('ERR_SNP_RESET_BLOCK', 'firmware does not say where further vCPUs start', {
      hint: 'Measure one vCPU, or use an OVMF built for SEV-ES and SEV-SNP.',
    })
  }
}

function addSections(context: LaunchContext, firmware: SevFirmware, launch: SnpLaunch): void {
  const hashPage = hashPageOf(firmware, launch.boot)
  // EC2 loads the CPUID page last, whatever its place in the table.
  const cpuidLast = launch.vmm === 'ec2'
  const ordered = cpuidLast
    ? [...firmware.sections.filter(isNotCpuid), ...firmware.sections.filter((section) => !isNotCpuid(section))]
    : firmware.sections
  for (const { type, gpa, bytes } of ordered) {
    if (type === 'kernel-hashes' && hashPage !== undefined) context.addPages(gpa, hashPage)
    else if (type === 'secrets' || type === 'cpuid') context.addUnreadPages(type, gpa, bytes)
    else context.addUnreadPages(type === 'sec-mem' && launch.vmm === 'gce' ? 'unmeasured' : 'zero', gpa, bytes)
  }
}

function isNotCpuid({ type }: MetadataSection): boolean {
  return type !== 'cpuid'
}

/** Without both the section and the address the firmware would start the kernel unmeasured, or not at all. */
function hashPageOf(firmware: SevFirmware, boot: DirectBoot | undefined): Uint8Array | undefined {
  if (boot === undefined) return undefined
  const section = firmware.sections.find(({ type }) => type === 'kernel-hashes')
  const { hashTable } = firmware
  if (section === undefined || hashTable === undefined) {
    throw new UsageError(
      'ERR_SNP_KERNEL_HASHES',
      'a kernel is given, but the firmware’s metadata has no place for its hash',
      {
        hint: 'Use an OVMF that checks kernels (OvmfPkg/AmdSev), or boot the kernel from a disk and leave --kernel away.',
      },
    )
  }
  if (Math.floor(hashTable.gpa / PAGE_BYTES) * PAGE_BYTES !== section.gpa) {
    throw new UsageError('ERR_SNP_KERNEL_HASHES', 'the firmware looks for hashes outside the page that is measured')
  }
  return kernelHashPage(boot, hashTable.gpa)
}

/** The SVSM ends where the variable store in front of the firmware begins; its metadata counts, the firmware's does not. */
function loadSvsm(context: LaunchContext, launch: SnpLaunch, state: Omit<StartState, 'eip'>): SaveAreaOf {
  const { svsm, boot, firmware, vmm } = launch
  if (svsm === undefined || boot !== undefined || (vmm ?? 'qemu') !== 'qemu') {
    throw new UsageError(
      'ERR_SNP_SVSM',
      'an SVSM is measured for QEMU and without --kernel, whose hashes it does not load',
    )
  }
  const image = parseSevFirmware(svsm.image)
  const { svsmLaunchOffset } = image
  if (svsmLaunchOffset === undefined) {
    throw new UsageError('ERR_SNP_SVSM', 'the SVSM image does not say where it starts', {
      hint: 'Give the SVSM as --svsm and the firmware as --ovmf.',
    })
  }
  const end = imageGpa(firmware) - svsm.varsBytes
  const gpa = imageGpa(image.image, end)
  if (!Number.isInteger(svsm.varsBytes) || svsm.varsBytes < 0 || svsm.varsBytes % PAGE_BYTES !== 0 || gpa < 0) {
    throw new UsageError('ERR_SNP_SVSM', `a variable store of ${svsm.varsBytes} bytes`)
  }
  context.addPages(gpa, image.image)
  addSections(context, image, { ...launch, firmware: image.image })
  const start = svsmSaveArea({ ...state, eip: gpa + svsmLaunchOffset })
  return () => start
}

function seed(digest: Uint8Array): Uint8Array {
  if (digest.length === DIGEST_BYTES) return digest
  throw new UsageError('ERR_SNP_DIGEST', `a firmware digest of ${digest.length} bytes; ${DIGEST_BYTES} are needed`)
}
