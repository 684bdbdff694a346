/**
 * The table of certificates that the host adds to a guest's report (AMD 56421 GHCB, SNP Extended Guest Request; `auxblob`
 * of configfs-tsm): entries of GUID, offset and length, a zero entry, then the certificates.
 *
 * The host writes it and nothing signs it: bytes that no entry refers to mean nothing, and are not looked at.
 */
import { ByteReader } from '#protocol/byte-reader'
import { toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

export type TableEntryKind = 'vcek' | 'vlek' | 'ask' | 'ark' | 'crl'

export interface TableEntry {
  /** Undefined: a GUID that is not known here. */
  readonly kind: TableEntryKind | undefined
  readonly guid: string
  readonly bytes: Uint8Array
}

const MAX_ENTRIES = 32
const MAX_TABLE_BYTES = 1024 * 1024
const NO_GUID = '0'.repeat(32)

const KINDS: Readonly<Record<string, TableEntryKind>> = {
  '63da758de6644564adc5f4b93be8accd': 'vcek',
  a8074bc2a25a483eaae639c045a0b8a1: 'vlek',
  '4ab7b379bbac4fe4a02f05aef327c782': 'ask',
  c0b406a4a803495297433fb6014cd0ae: 'ark',
  '92f81bc358114d3d97ffd19f88dc67ea': 'crl',
}

/** Throws `MalformedError` ERR_SNP_CERTIFICATE_TABLE or ERR_TRUNCATED. */
export function parseCertificateTable(table: Uint8Array): TableEntry[] {
  if (table.length > MAX_TABLE_BYTES) throw malformed(`${table.length} bytes, at most ${MAX_TABLE_BYTES} are read`)
  if (table.length === 0) return []
  const reader = new ByteReader(table, 'certificate table')
  const places: { guid: string; offset: number; length: number }[] = []
  for (;;) {
    const guid = toHex(reader.bytes(16))
    const offset = reader.u32le()
    const length = reader.u32le()
    if (guid === NO_GUID) break
    if (places.push({ guid, offset, length }) > MAX_ENTRIES) throw malformed(`more than ${MAX_ENTRIES} entries`)
  }
  const start = reader.offset
  return places.map(({ guid, offset, length }) => {
    if (offset < start || offset + length > table.length) throw malformed(`an entry outside of the table (${guid})`)
    return { guid, kind: KINDS[guid] ?? KINDS[swapped(guid)], bytes: table.slice(offset, offset + length) }
  })
}

/** Hosts write GUIDs in either byte order. */
function swapped(guid: string): string {
  const part = (from: number, to: number): string => Buffer.from(guid.slice(from, to), 'hex').reverse().toString('hex')
  return part(0, 8) + part(8, 12) + part(12, 16) + guid.slice(16)
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_SNP_CERTIFICATE_TABLE', `certificate table: ${why}`)
}
