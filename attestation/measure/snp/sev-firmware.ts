/**
 * What OVMF and SVSM images say of themselves in the table of GUIDs at their end: where they are mapped, where application
 * processors start, and which pages the VMM must prepare for an SEV-SNP guest (OvmfPkg/ResetVector). Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'
import { readFirmwareTable } from '../firmware-table.ts'

export const PAGE_BYTES = 4096
const FOUR_GIB = 0x1_0000_0000
const MAX_IMAGE_BYTES = 64 * 1024 * 1024
const SECTION_BYTES = 12
const METADATA_HEADER_BYTES = 16
/** edk2 has 8; far more than any image needs. */
const MAX_SECTIONS = 64

/** GUIDs as they lie in memory (mixed-endian), hex. */
const GUID = {
  sevEsReset: 'de71f7007e1acb4f890e68c77e2fb44e',
  hashTable: '1f3755723b3a044b927b1da6efa8d454',
  sevMetadata: '666588dc4a989847a75e5585a7bf67cc',
  svsmInfo: '12a689a797054b4ca49fcbb1fe9d1ddd',
} as const

const SECTION_TYPES: Readonly<Record<number, SectionType>> = {
  1: 'sec-mem',
  2: 'secrets',
  3: 'cpuid',
  4: 'svsm-caa',
  16: 'kernel-hashes',
}

export type SectionType = 'sec-mem' | 'secrets' | 'cpuid' | 'svsm-caa' | 'kernel-hashes'

/** One range of guest memory, whole pages. */
export interface MetadataSection {
  readonly type: SectionType
  /** Guest physical address. */
  readonly gpa: number
  readonly bytes: number
}

export interface SevFirmware {
  readonly image: Uint8Array
  /** In table order, which is the order of measurement. */
  readonly sections: readonly MetadataSection[]
  /** First instruction of application processors; undefined when the image names none. */
  readonly apResetEip: number | undefined
  /** Where the table of kernel hashes lies; undefined when the image does not check kernels. */
  readonly hashTable: { readonly gpa: number; readonly bytes: number } | undefined
  /** Entry point of an SVSM, counted from the start of its image. */
  readonly svsmLaunchOffset: number | undefined
}

/** Guest physical address of an image whose last byte lies before `end`. */
export function imageGpa(image: Uint8Array, end: number = FOUR_GIB): number {
  return end - image.length
}

/** Throws `MalformedError` ERR_SNP_FIRMWARE or ERR_TRUNCATED. The image is kept, not copied. */
export function parseSevFirmware(image: Uint8Array): SevFirmware {
  if (image.length === 0 || image.length > MAX_IMAGE_BYTES || image.length % PAGE_BYTES !== 0) {
    throw malformed(`${image.length} bytes: whole pages of ${PAGE_BYTES} are needed, at most ${MAX_IMAGE_BYTES}`)
  }
  const table = readFirmwareTable(image, malformed) ?? new Map<string, Uint8Array>()
  const reset = table.get(GUID.sevEsReset)
  const hashes = table.get(GUID.hashTable)
  const metadata = table.get(GUID.sevMetadata)
  const svsm = table.get(GUID.svsmInfo)
  return {
    image,
    sections: metadata === undefined ? [] : readSections(image, u32(metadata, 'SEV metadata offset')),
    apResetEip: reset === undefined ? undefined : u32(reset, 'SEV-ES reset block'),
    hashTable: hashes === undefined ? undefined : readHashTable(hashes),
    svsmLaunchOffset: svsm === undefined ? undefined : u32(svsm, 'SVSM info'),
  }
}

/** @param fromEnd where the metadata begins, counted back from the image's end */
function readSections(image: Uint8Array, fromEnd: number): MetadataSection[] {
  if (fromEnd > image.length) throw malformed('SEV metadata before the start of the image')
  const reader = new ByteReader(image.subarray(image.length - fromEnd), 'SEV metadata')
  const signature = reader.u32le()
  const bytes = reader.u32le()
  const version = reader.u32le()
  const count = reader.u32le()
  if (signature !== 0x5645_5341) throw malformed('SEV metadata without its signature')
  if (version !== 1) throw malformed(`SEV metadata of version ${version}`)
  if (count > MAX_SECTIONS || bytes < METADATA_HEADER_BYTES + count * SECTION_BYTES) {
    throw malformed(`SEV metadata of ${bytes} bytes with ${count} sections`)
  }
  return Array.from({ length: count }, () => readSection(reader))
}

function readSection(reader: ByteReader): MetadataSection {
  const gpa = reader.u32le()
  const bytes = reader.u32le()
  const number = reader.u32le()
  const type = SECTION_TYPES[number]
  if (type === undefined) throw malformed(`SEV metadata section of unknown type ${number}`)
  if (gpa % PAGE_BYTES !== 0 || bytes % PAGE_BYTES !== 0) throw malformed(`${type} section that is not whole pages`)
  // The firmware launches one such page, and the VMM fills one.
  if (bytes !== PAGE_BYTES && type !== 'sec-mem' && type !== 'svsm-caa') throw malformed(`${type} of ${bytes} bytes`)
  if (bytes > MAX_IMAGE_BYTES) throw malformed(`${type} of ${bytes} bytes`)
  return { type, gpa, bytes }
}

function readHashTable(entry: Uint8Array): SevFirmware['hashTable'] {
  const reader = new ByteReader(entry, 'hash table area')
  const gpa = reader.u32le()
  const bytes = reader.u32le()
  return gpa === 0 ? undefined : { gpa, bytes }
}

function u32(entry: Uint8Array, what: string): number {
  return new ByteReader(entry, what).u32le()
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_SNP_FIRMWARE', `firmware image: ${why}`)
}
