/**
 * The table of GUIDs near the end of OVMF and SVSM images (OvmfPkg/ResetVector): it grows towards lower addresses from its
 * footer, which the reset vector follows. Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { toHex } from '#protocol/encoding'
import type { MalformedError } from '#protocol/errors'

/** The footer entry ends this many bytes before the image does. */
const BYTES_AFTER_TABLE = 32
/** Length and GUID. */
const ENTRY_HEADER_BYTES = 18
const FOOTER = 'de82b596b21ff745baeaa366c55a082d'

/**
 * Data of each entry, by GUID as it lies in memory (mixed-endian), hex. Undefined when the image has no table. Throws what
 * `malformed` makes, or ERR_TRUNCATED.
 */
export function readFirmwareTable(
  image: Uint8Array,
  malformed: (why: string) => MalformedError,
): ReadonlyMap<string, Uint8Array> | undefined {
  const end = image.length - BYTES_AFTER_TABLE
  const footer = readEntryHeader(image, end)
  if (footer.guid !== FOOTER) return undefined
  const entries = new Map<string, Uint8Array>()
  const start = end - footer.length
  if (footer.length < ENTRY_HEADER_BYTES || start < 0) throw malformed(`a table of ${footer.length} bytes`)
  for (let entryEnd = end - ENTRY_HEADER_BYTES; entryEnd - start >= ENTRY_HEADER_BYTES; ) {
    const { length, guid } = readEntryHeader(image, entryEnd)
    if (length < ENTRY_HEADER_BYTES || entryEnd - length < start) throw malformed(`a table entry of ${length} bytes`)
    // Two entries could each be read by another program.
    if (entries.has(guid)) throw malformed(`table entry ${guid} occurs twice`)
    entries.set(guid, image.subarray(entryEnd - length, entryEnd - ENTRY_HEADER_BYTES))
    entryEnd -= length
  }
  return entries
}

function readEntryHeader(image: Uint8Array, end: number): { length: number; guid: string } {
  const reader = new ByteReader(image.subarray(Math.max(end - ENTRY_HEADER_BYTES, 0), end), 'firmware table entry')
  return { length: reader.u16le(), guid: toHex(reader.bytes(16)) }
}
