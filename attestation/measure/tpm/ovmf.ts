/**
 * What OVMF measures of itself into PCR 0. It unpacks two volumes into memory; its TPM driver hashes both there. By then
 * PlatformPei, which runs inside the first of them, has written what it learned of the machine into its global variables,
 * so the measured volume is the packed one with those bytes changed. On q35 with S3 off and 40 physical address bits they
 * depend on the number of CPUs, and on the memory in three ranges: most sizes; more than 2 GiB but less than 2.75 GiB
 * (all of it lies below 4 GiB); more than 30 GiB, in steps of 32 GiB (the PCI window moves up).
 *
 * Layout of the variables: EFI_HOB_PLATFORM_INFO, OvmfPkg/Include/Library/PlatformInitLib.h of edk2-stable202211, packed.
 */
import { createHash } from 'node:crypto'
import { concatBytes, toHex } from '#protocol/encoding'
import { UsageError } from '#protocol/errors'
import { unpackVolumes } from './firmware-volume.ts'

export interface FirmwareMachine {
  /** CPUs at boot, which must also be the most that can be plugged. */
  readonly vcpus: number
  /** Memory in MiB. Default 2048, which stands for every size up to it and for 2816 to 30720. */
  readonly memoryMib?: number
}

export interface MeasuredFirmware {
  readonly build: string
  /** Text of EV_S_CRTM_VERSION. */
  readonly version: string
  readonly peiVolume: Uint8Array
  readonly dxeVolume: Uint8Array
}

/** Builds whose predictions were compared with real boots, by SHA-256 of the packed PEI volume. */
const CONFIRMED_BUILDS: Readonly<Record<string, string>> = {
  '18e2c1cc4960c2694c162e8e756fbf467aaeceee7dbfe1e1dd919ffb2cd9a9d2': 'Debian 12 ovmf 2022.11-6+deb12u2',
}

/** HOST_BRIDGE device ids that the code compares HostBridgeDevId with: q35, i440fx, microvm. */
const HOST_BRIDGES: ReadonlySet<number> = new Set([0x29c0, 0x1237, 0x0d57])
const MIN_REFERENCES = 3

const MIB = 2n ** 20n
const GIB = 2n ** 30n
/** From this size on, q35 puts only 2 GiB below 4 GiB. */
const SPLIT_MIB = 2816
const MAX_MEMORY_MIB = 512 * 1024
const PCI_WINDOW = 32n * GIB

/**
 * Builds that are not confirmed are taken to have the same layout; a wrong guess shows as a PCR 0 that never matches.
 *
 * Throws `UsageError` ERR_FIRMWARE_UNKNOWN for firmware that does not look like such a build, `MalformedError`
 * ERR_FIRMWARE for what is no firmware image.
 */
export function measuredFirmware(image: Uint8Array, machine: FirmwareMachine): MeasuredFirmware {
  const [packedPei, dxeVolume] = unpackVolumes(image)
  const info = platformInfo(machine)
  const offset = packedPei === undefined ? undefined : findPlatformInfo(packedPei, info.length)
  if (packedPei === undefined || dxeVolume === undefined || offset === undefined) {
    throw new UsageError('ERR_FIRMWARE_UNKNOWN', 'firmware in which OVMF’s PEI and DXE volumes are not found', {
      hint: `Use an OVMF.fd of edk2-stable202211, for example ${Object.values(CONFIRMED_BUILDS).join(', ')}.`,
    })
  }
  const peiVolume = packedPei.slice()
  peiVolume.set(info, offset)
  const digest = toHex(createHash('sha256').update(packedPei).digest())
  const build = CONFIRMED_BUILDS[digest] ?? `an OVMF build that was never compared (${digest.slice(0, 12)})`
  return { build, version: '', peiVolume, dxeVolume: dxeVolume.slice() }
}

/**
 * Where HostBridgeDevId lies in the PEI volume, which depends on how the build was linked: the operand that all
 * instructions `cmp word [rip + d32], <host bridge id>` share. Modules run in place, so file offsets are addresses.
 */
function findPlatformInfo(volume: Uint8Array, size: number): number | undefined {
  const view = new DataView(volume.buffer, volume.byteOffset, volume.byteLength)
  const references = new Map<number, number>()
  for (let at = 0; at + 9 <= volume.length; at++) {
    if (volume[at] !== 0x66 || volume[at + 1] !== 0x81 || volume[at + 2] !== 0x3d) continue
    if (!HOST_BRIDGES.has(view.getUint16(at + 7, true))) continue
    const target = at + 9 + view.getInt32(at + 3, true)
    references.set(target, (references.get(target) ?? 0) + 1)
  }
  const [found, ...others] = references
  if (found === undefined || others.length > 0) return undefined
  const [target, count] = found
  const room = volume.subarray(Math.max(target, 0), target + size)
  const empty = room.length === size && room.every((byte) => byte === 0)
  return count >= MIN_REFERENCES && empty ? target : undefined
}

/** Fields of EFI_HOB_PLATFORM_INFO from HostBridgeDevId on. */
function platformInfo({ vcpus, memoryMib = 2048 }: FirmwareMachine): Uint8Array {
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > 255) {
    throw new UsageError('ERR_VCPU_COUNT', `${vcpus} CPUs, 1 to 255 can be measured`)
  }
  if (!Number.isInteger(memoryMib) || memoryMib < 64 || memoryMib > MAX_MEMORY_MIB) {
    throw new UsageError('ERR_MEMORY_SIZE', `${memoryMib} MiB of memory, 64 to ${MAX_MEMORY_MIB} can be measured`)
  }
  const aboveFourGib = memoryMib < SPLIT_MIB ? 0n : BigInt(memoryMib) * MIB - 2n * GIB
  const pciWindow = alignUp(4n * GIB + aboveFourGib, PCI_WINDOW)
  return concatBytes(
    little(0x29c0, 2), // HostBridgeDevId: q35
    little(0, 8), // PcdConfidentialComputingGuestAttr
    little(0, 1), // SevEsIsEnabled
    little(0, 4), // BootMode: BOOT_WITH_FULL_CONFIGURATION
    little(0, 1), // S3Supported
    little(0, 1), // SmmSmramRequire
    little(0, 1), // Q35SmramAtDefaultSmbase
    little(0, 2), // Q35TsegMbytes
    little(pciWindow + PCI_WINDOW, 8), // FirstNonAddress: end of the PCI window behind the memory
    little(40, 1), // PhysMemAddressWidth
    little(memoryMib > 2048 && memoryMib < SPLIT_MIB ? 0xb000_0000 : 0x8000_0000, 4), // Uc32Base
    little(0, 4), // Uc32Size
    little(0, 1), // PcdSetNxForStack
    little(0, 8), // PcdTdxSharedBitMask
    little(896n * GIB, 8), // PcdPciMmio64Base: the last eighth of the address space
    little(128n * GIB, 8), // PcdPciMmio64Size
    little(0xc000_0000, 4), // PcdPciMmio32Base
    little(0x3c00_0000, 4), // PcdPciMmio32Size
    little(0x6000, 8), // PcdPciIoBase
    little(0xa000, 8), // PcdPciIoSize
    little(0, 8), // PcdEmuVariableNvStoreReserved
    little(vcpus, 4), // PcdCpuBootLogicalProcessorNumber
    little(vcpus, 4), // PcdCpuMaxLogicalProcessorNumber
    little(64, 4), // DefaultMaxCpuNumber
    little(0, 4), // S3AcpiReservedMemoryBase
    little(0, 4), // S3AcpiReservedMemorySize
    little(0x0101, 2), // two flags of the module that follow the structure
  )
}

function alignUp(value: bigint, to: bigint): bigint {
  return ((value + to - 1n) / to) * to
}

function little(value: number | bigint, bytes: number): Uint8Array {
  let rest = BigInt(value)
  return Uint8Array.from({ length: bytes }, () => {
    const byte = Number(rest & 0xffn)
    rest >>= 8n
    return byte
  })
}
