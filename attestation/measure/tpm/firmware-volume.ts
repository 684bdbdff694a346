/**
 * UEFI firmware images: volumes, files and sections (UEFI Platform Initialization specification 1.7, volume 3), down to
 * the volumes that OVMF unpacks into memory and measures. Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { unpackLzma } from './lzma.ts'

const VOLUME_HEADER_BYTES = 0x38
const VOLUME_SIGNATURE = '5f465648' // _FVH
const FILE_HEADER_BYTES = 24
const FILE_TYPE_VOLUME_IMAGE = 0x0b
const SECTION_GUIDED = 0x02
const SECTION_VOLUME_IMAGE = 0x17
/** ee4e5898-3914-4259-9d6e-dc7bd79403cf, mixed-endian */
const LZMA_GUID = '98584eee143959429d6edc7bd79403cf'
const LARGE = 0xffffff
const MAX_IMAGE_BYTES = 64 * 1024 * 1024
const MAX_DEPTH = 4

/**
 * The volumes packed inside the image, in their order: for OVMF the PEI volume and the DXE volume.
 * Throws `MalformedError` ERR_FIRMWARE or ERR_TRUNCATED.
 */
export function unpackVolumes(image: Uint8Array): Uint8Array[] {
  if (image.length > MAX_IMAGE_BYTES) throw malformed(`image of ${image.length} bytes, limit ${MAX_IMAGE_BYTES}`)
  const packed: Uint8Array[] = []
  for (let offset = 0; offset < image.length; ) {
    const volume = readVolume(image.subarray(offset))
    packed.push(...volumeFiles(volume).flatMap((sections) => volumesIn(sections, 0)))
    offset += volume.length
  }
  return packed
}

/** The volume at the start of `bytes`, cut to its length. */
function readVolume(bytes: Uint8Array): Uint8Array {
  const reader = new ByteReader(bytes, 'firmware volume')
  reader.skip(0x20) // zero vector, file system GUID
  const length = Number(reader.u64le())
  if (toHex(reader.bytes(4)) !== VOLUME_SIGNATURE) throw malformed('no firmware volume where one must begin')
  if (length < VOLUME_HEADER_BYTES || length > bytes.length) throw malformed(`volume of ${length} bytes`)
  return bytes.subarray(0, length)
}

/** Content of the files that hold volumes. */
function volumeFiles(volume: Uint8Array): Uint8Array[] {
  const header = new ByteReader(volume, 'firmware volume')
  header.skip(0x30)
  const headerLength = header.u16le()
  header.skip(2)
  const extension = header.u16le()
  let offset = headerLength
  if (extension !== 0) {
    const size = new ByteReader(volume.subarray(extension + 16), 'firmware volume extension').u32le()
    offset = align(extension + size, 8)
  }
  const files: Uint8Array[] = []
  while (offset + FILE_HEADER_BYTES <= volume.length) {
    const fileHeader = volume.subarray(offset, offset + FILE_HEADER_BYTES)
    if (fileHeader.every((byte) => byte === 0xff)) break // free space to the end
    const reader = new ByteReader(fileHeader, 'firmware file')
    reader.skip(18)
    const type = reader.u8()
    reader.skip(1)
    const size = u24(reader)
    if (size < FILE_HEADER_BYTES || offset + size > volume.length) break // a variable store, or large files: no volumes
    if (type === FILE_TYPE_VOLUME_IMAGE) files.push(volume.subarray(offset + FILE_HEADER_BYTES, offset + size))
    offset = align(offset + size, 8)
  }
  return files
}

function volumesIn(sections: Uint8Array, depth: number): Uint8Array[] {
  if (depth > MAX_DEPTH) throw malformed('sections nested too deeply')
  const volumes: Uint8Array[] = []
  for (let offset = 0; offset + 4 <= sections.length; ) {
    const section = readSection(sections.subarray(offset))
    if (section.type === SECTION_GUIDED)
      volumes.push(...volumesIn(unpackGuided(section.content, section.header), depth + 1))
    if (section.type === SECTION_VOLUME_IMAGE) volumes.push(readVolume(section.content))
    offset = align(offset + section.size, 4)
  }
  return volumes
}

interface Section {
  readonly type: number
  readonly size: number
  readonly header: number
  readonly content: Uint8Array
}

function readSection(bytes: Uint8Array): Section {
  const reader = new ByteReader(bytes, 'firmware section')
  const short = u24(reader)
  const type = reader.u8()
  const size = short === LARGE ? reader.u32le() : short
  const header = short === LARGE ? 8 : 4
  if (size < header || size > bytes.length) throw malformed(`section of ${size} bytes`)
  return { type, size, header, content: bytes.subarray(header, size) }
}

/** @param header bytes before the GUID, since the data offset counts from the section's start */
function unpackGuided(content: Uint8Array, header: number): Uint8Array {
  const reader = new ByteReader(content, 'GUIDed section')
  const guid = toHex(reader.bytes(16))
  const dataOffset = reader.u16le()
  if (guid !== LZMA_GUID) throw malformed(`section packed in an unknown way (${guid})`)
  if (dataOffset < header + 20) throw malformed(`GUIDed section with its data at ${dataOffset}`)
  return unpackLzma(content.slice(dataOffset - header))
}

function u24(reader: ByteReader): number {
  return reader.u16le() | (reader.u8() << 16)
}

function align(offset: number, to: number): number {
  return Math.ceil(offset / to) * to
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_FIRMWARE', `firmware image: ${why}`)
}
