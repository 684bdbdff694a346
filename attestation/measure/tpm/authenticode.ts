/**
 * Authenticode digest of a PE image (Windows Authenticode Portable Executable Signature Format 1.0, "Calculating the PE
 * Image Hash"): what firmware measures of an image that it starts.
 */
import { createHash } from 'node:crypto'
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'

const PE_OFFSET = 0x3c
const PE_SIGNATURE = 0x0000_4550
const PE32_PLUS = 0x20b
const CHECKSUM_OFFSET = 64
const CERTIFICATE_TABLE = 4
const SECTION_HEADER_BYTES = 40

/** Throws `MalformedError` ERR_PE_IMAGE or ERR_TRUNCATED. */
export function authenticodeSha256(image: Uint8Array): Uint8Array {
  return authenticode(image, 'sha256')
}

/** What TDs measure. Throws `MalformedError` ERR_PE_IMAGE or ERR_TRUNCATED. */
export function authenticodeSha384(image: Uint8Array): Uint8Array {
  return authenticode(image, 'sha384')
}

function authenticode(image: Uint8Array, algorithm: 'sha256' | 'sha384'): Uint8Array {
  const layout = readLayout(image)
  const hash = createHash(algorithm)
  hash.update(slice(image, 0, layout.checksum))
  if (layout.certificateEntry === undefined) {
    hash.update(slice(image, layout.checksum + 4, layout.headers))
  } else {
    hash.update(slice(image, layout.checksum + 4, layout.certificateEntry))
    hash.update(slice(image, layout.certificateEntry + 8, layout.headers))
  }
  let hashed = layout.headers
  for (const { offset, size } of layout.sections) {
    hash.update(slice(image, offset, offset + size))
    hashed += size
  }
  const end = image.length - layout.certificateBytes
  if (end > hashed) hash.update(slice(image, hashed, end))
  return new Uint8Array(hash.digest())
}

interface PeLayout {
  readonly checksum: number
  readonly headers: number
  readonly certificateEntry: number | undefined
  readonly certificateBytes: number
  /** In the order of their place in the file. */
  readonly sections: readonly { readonly offset: number; readonly size: number }[]
}

function readLayout(image: Uint8Array): PeLayout {
  const pe = at(image, PE_OFFSET).u32le()
  const fileHeader = at(image, pe)
  if (fileHeader.u32le() !== PE_SIGNATURE) throw malformed('no PE signature: is this a kernel with an EFI stub?')
  fileHeader.skip(2)
  const sectionCount = fileHeader.u16le()
  fileHeader.skip(12)
  const optionalBytes = fileHeader.u16le()
  const optional = pe + 24
  if (at(image, optional).u16le() !== PE32_PLUS) throw malformed('not PE32+')
  const headers = at(image, optional + 60).u32le()
  const directories = at(image, optional + 108).u32le()
  const certificateEntry = directories > CERTIFICATE_TABLE ? optional + 112 + 8 * CERTIFICATE_TABLE : undefined
  const certificateBytes = certificateEntry === undefined ? 0 : at(image, certificateEntry + 4).u32le()
  if (certificateBytes > image.length) throw malformed(`certificates of ${certificateBytes} bytes`)
  const table = optional + optionalBytes
  const sections = Array.from({ length: sectionCount }, (_, index) => {
    const header = at(image, table + index * SECTION_HEADER_BYTES + 16)
    const size = header.u32le()
    return { size, offset: header.u32le() }
  })
  return {
    checksum: optional + CHECKSUM_OFFSET,
    headers,
    certificateEntry,
    certificateBytes,
    sections: sections.filter(({ size }) => size > 0).sort((a, b) => a.offset - b.offset),
  }
}

function at(image: Uint8Array, offset: number): ByteReader {
  const reader = new ByteReader(image, 'PE image')
  reader.skip(offset)
  return reader
}

function slice(image: Uint8Array, start: number, end: number): Uint8Array {
  if (start > end || end > image.length) throw malformed(`bytes ${start} to ${end} of ${image.length}`)
  return image.subarray(start, end)
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_PE_IMAGE', `PE image: ${why}`)
}
