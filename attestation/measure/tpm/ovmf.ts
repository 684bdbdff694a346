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

interface KnownBuild {
  readonly name: string
  readonly version: string
  /** Where mPlatformInfoHob.HostBridgeDevId lies in the PEI volume. */
  readonly platformInfo: number
}

/** By SHA-256 of the packed PEI volume: the offset depends on how the build's modules were linked. */
const KNOWN_BUILDS: Readonly<Record<string, KnownBuild>> = {
  '18e2c1cc4960c2694c162e8e756fbf467aaeceee7dbfe1e1dd919ffb2cd9a9d2': {
    name: 'Debian 12 ovmf 2022.11, OVMF.fd (2 MiB)',
    version: '',
    platformInfo: 0xefd8,
  },
}

const MIB = 2n ** 20n
const GIB = 2n ** 30n
/** From this size on, q35 puts only 2 GiB below 4 GiB. */
const SPLIT_MIB = 2816
const MAX_MEMORY_MIB = 512 * 1024
const PCI_WINDOW = 32n * GIB

/**
 * Throws `UsageError` ERR_FIRMWARE_UNKNOWN for a build whose layout is not known, `MalformedError` ERR_FIRMWARE for what
 * is no such image.
 */
export function measuredFirmware(image: Uint8Array, machine: FirmwareMachine): MeasuredFirmware {
  const [packedPei, dxeVolume] = unpackVolumes(image)
  const peiDigest = packedPei === undefined ? 'none' : toHex(createHash('sha256').update(packedPei).digest())
  const build = KNOWN_BUILDS[peiDigest]
  if (packedPei === undefined || dxeVolume === undefined || build === undefined) {
    throw new UsageError('ERR_FIRMWARE_UNKNOWN', `firmware whose PEI volume (SHA-256 ${peiDigest}) is not known here`, {
      hint: `PCR 0 can be predicted for ${Object.values(KNOWN_BUILDS)
        .map(({ name }) => name)
        .join('; ')}.`,
    })
  }
  const info = platformInfo(machine)
  const peiVolume = packedPei.slice()
  peiVolume.set(info, build.platformInfo)
  return { build: build.name, version: build.version, peiVolume, dxeVolume: dxeVolume.slice() }
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
