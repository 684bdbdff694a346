/**
 * TDX virtual firmware: what an image says the VMM must put into the memory of a TD before it starts (Intel TDX Virtual
 * Firmware Design Guide 1.01, section 11). OVMF names the place in its table of GUIDs, td-shim near the image's end.
 * Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'
import { readFirmwareTable } from '../firmware-table.ts'

export const PAGE_BYTES = 4096
const MAX_IMAGE_BYTES = 64 * 1024 * 1024
/** All sections together; OVMF needs 4 MiB, td-shim's payload far less than this. */
const MAX_MEMORY_BYTES = 1024 * 1024 * 1024
const MAX_SECTIONS = 64
const SECTION_BYTES = 32
const DESCRIPTOR_BYTES = 16
const SIGNATURE = 0x4656_4454 // TDVF

/** GUID as it lies in memory (mixed-endian), hex. */
const TDX_METADATA = '35657ae44a989847865e4685a7bf8ec2'
/** Images without a table have the offset of the descriptor this many bytes before their end. */
const TD_SHIM_OFFSET = 32

export const SECTION_TYPES = [
  'BFV',
  'CFV',
  'TD_HOB',
  'TempMem',
  'PermMem',
  'Payload',
  'PayloadParam',
  'TD_INFO',
  'TD_PARAMS',
] as const

export type TdvfSectionType = (typeof SECTION_TYPES)[number]

export interface TdvfSection {
  readonly type: TdvfSectionType
  /** Content in the image; the rest of the memory is zero. */
  readonly data: Uint8Array
  /** Guest physical address. */
  readonly gpa: bigint
  /** Whole pages. */
  readonly memoryBytes: number
  /** Content is measured into MRTD (attribute bit 0). */
  readonly extend: boolean
  /** Pages are not added before the TD starts, but accepted by it later (attribute bit 1). */
  readonly augment: boolean
}

export interface Tdvf {
  readonly image: Uint8Array
  /** In the order of the descriptor, which is the order of measurement. */
  readonly sections: readonly TdvfSection[]
}

/** Throws `MalformedError` ERR_TDVF or ERR_TRUNCATED. Sections are views of the image. */
export function parseTdvf(image: Uint8Array): Tdvf {
  if (image.length < DESCRIPTOR_BYTES + TD_SHIM_OFFSET || image.length > MAX_IMAGE_BYTES) {
    throw malformed(`${image.length} bytes, up to ${MAX_IMAGE_BYTES} are read`)
  }
  const start = descriptorOffset(image)
  if (start < 0 || start + DESCRIPTOR_BYTES > image.length) throw malformed('its descriptor lies outside the image')
  const reader = new ByteReader(image.subarray(start), 'TDVF descriptor')
  if (reader.u32le() !== SIGNATURE) throw malformed('no TDVF descriptor: the image was not built for TDX')
  const length = reader.u32le()
  const version = reader.u32le()
  const count = reader.u32le()
  if (version !== 1) throw malformed(`descriptor of version ${version}`)
  if (count === 0 || count > MAX_SECTIONS || length < DESCRIPTOR_BYTES + count * SECTION_BYTES) {
    throw malformed(`descriptor of ${length} bytes with ${count} sections`)
  }
  const sections = Array.from({ length: count }, () => readSection(reader, image))
  const memory = sections.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0)
  if (memory > MAX_MEMORY_BYTES) throw malformed(`sections of ${memory} bytes, up to ${MAX_MEMORY_BYTES} are measured`)
  return { image, sections }
}

function descriptorOffset(image: Uint8Array): number {
  const table = readFirmwareTable(image, malformed)
  if (table === undefined) return new ByteReader(image.subarray(-TD_SHIM_OFFSET), 'TDVF offset').u32le()
  const entry = table.get(TDX_METADATA)
  if (entry === undefined) throw malformed('no TDX metadata: the image was not built for TDX')
  return image.length - new ByteReader(entry, 'TDX metadata entry').u32le()
}

function readSection(reader: ByteReader, image: Uint8Array): TdvfSection {
  const offset = reader.u32le()
  const rawBytes = reader.u32le()
  const gpa = reader.u64le()
  const memoryBytes = reader.u64le()
  const number = reader.u32le()
  const attributes = reader.u32le()
  const type = SECTION_TYPES[number]
  if (type === undefined) throw malformed(`a section of unknown type ${number}`)
  if (attributes > 3) throw malformed(`${type} with unknown attributes 0x${attributes.toString(16)}`)
  if (offset + rawBytes > image.length) throw malformed(`${type} lies outside the image`)
  const page = BigInt(PAGE_BYTES)
  if (gpa % page !== 0n || memoryBytes % page !== 0n) throw malformed(`${type} is not whole pages`)
  if (memoryBytes < BigInt(rawBytes) || memoryBytes > BigInt(MAX_MEMORY_BYTES)) {
    throw malformed(`${type} of ${rawBytes} bytes in ${memoryBytes} bytes of memory`)
  }
  return {
    type,
    data: image.subarray(offset, offset + rawBytes),
    gpa,
    memoryBytes: Number(memoryBytes),
    extend: (attributes & 1) !== 0,
    augment: (attributes & 2) !== 0,
  }
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_TDVF', `TDX firmware: ${why}`, {
    hint: 'Use an image that was built for TDX: an OVMF with TDX metadata, or td-shim.',
  })
}
