/**
 * What lies inside the data of UEFI events: signature databases and device paths (UEFI 2.10, sections 32.4.1 and 10.3),
 * partition tables, firmware blobs and tables (PC Client Platform Firmware Profile 1.06, section 10.2). Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

/** One EFI_SIGNATURE_LIST of db, dbx, KEK or PK. */
export interface SignatureList {
  /** Registry form: "a5c059a1-94e4-4aa7-87b5-ab155c2bf072". */
  readonly type: string
  readonly entries: readonly { readonly owner: string; readonly data: Uint8Array }[]
}

export const SIGNATURE_TYPE = {
  x509: 'a5c059a1-94e4-4aa7-87b5-ab155c2bf072',
  sha256: 'c1c41626-504c-4092-aca9-41f936934328',
} as const

export interface DevicePathNode {
  readonly type: number
  readonly subtype: number
  readonly data: Uint8Array
}

export interface GptEvent {
  readonly diskGuid: string
  readonly partitions: readonly { readonly type: string; readonly guid: string; readonly name: string }[]
}

export interface FirmwareBlob {
  /** Of the second form of the event; empty in the first. */
  readonly description: string
  readonly base: bigint
  readonly length: bigint
}

const SIGNATURE_LIST_HEADER = 28
const GUID_BYTES = 16
const MAX_ENTRIES = 16_384
const MAX_PATH_NODES = 64
const END_OF_PATH = 0x7f
const GPT_HEADER_BYTES = 92
const GPT_SIGNATURE = 'EFI PART'
const MIN_GPT_ENTRY = 128

/** "8be4df61-93ca-11d2-aa0d-00e098032b8c" of the 16 mixed-endian bytes. */
export function guidText(bytes: Uint8Array): string {
  const part = (start: number, end: number): Uint8Array => bytes.slice(start, end)
  const swapped = (start: number, end: number): string => toHex(part(start, end).toReversed())
  return [swapped(0, 4), swapped(4, 6), swapped(6, 8), toHex(part(8, 10)), toHex(part(10, 16))].join('-')
}

/** Value of a signature database. Throws `MalformedError` ERR_UEFI_EVENT, ERR_TRUNCATED. */
export function parseSignatureLists(value: Uint8Array): SignatureList[] {
  const reader = new ByteReader(value, 'EFI_SIGNATURE_LIST')
  const lists: SignatureList[] = []
  let count = 0
  while (reader.remaining > 0) {
    const type = guidText(reader.bytes(GUID_BYTES))
    const listBytes = reader.u32le()
    const headerBytes = reader.u32le()
    const entryBytes = reader.u32le()
    const body = listBytes - SIGNATURE_LIST_HEADER - headerBytes
    if (entryBytes < GUID_BYTES || body < 0 || body % entryBytes !== 0) {
      throw malformed(`signature list of ${listBytes} bytes with entries of ${entryBytes}`)
    }
    reader.skip(headerBytes)
    count += body / entryBytes
    if (count > MAX_ENTRIES || body > reader.remaining) throw malformed(`signature list of ${listBytes} bytes`)
    const entries = Array.from({ length: body / entryBytes }, () => ({
      owner: guidText(reader.bytes(GUID_BYTES)),
      data: reader.bytes(entryBytes - GUID_BYTES),
    }))
    lists.push({ type, entries })
  }
  return lists
}

/** Without the node that ends it. Throws as `parseSignatureLists`. */
export function parseDevicePath(path: Uint8Array): DevicePathNode[] {
  const reader = new ByteReader(path, 'EFI_DEVICE_PATH_PROTOCOL')
  const nodes: DevicePathNode[] = []
  while (reader.remaining > 0) {
    const type = reader.u8()
    const subtype = reader.u8()
    const bytes = reader.u16le()
    if (bytes < 4 || nodes.length >= MAX_PATH_NODES) throw malformed(`device path node of ${bytes} bytes`)
    const data = reader.bytes(bytes - 4)
    if (type === END_OF_PATH) break
    nodes.push({ type, subtype, data })
  }
  return nodes
}

/** UEFI_GPT_DATA. Throws as `parseSignatureLists`. */
export function parseGptEvent(data: Uint8Array): GptEvent {
  const reader = new ByteReader(data, 'UEFI_GPT_DATA')
  const header = reader.bytes(GPT_HEADER_BYTES)
  if (String.fromCharCode(...header.subarray(0, 8)) !== GPT_SIGNATURE) throw malformed('not a partition table')
  const entryBytes = new ByteReader(header.subarray(84), 'GPT header').u32le()
  const count = reader.u64le()
  if (entryBytes < MIN_GPT_ENTRY || count * BigInt(entryBytes) > BigInt(reader.remaining)) {
    throw malformed(`${count} partitions of ${entryBytes} bytes`)
  }
  const partitions = Array.from({ length: Number(count) }, () => {
    const entry = reader.bytes(entryBytes)
    const name = new TextDecoder('utf-16le').decode(entry.subarray(56, 128)).replace(/\0[\s\S]*$/, '')
    return { type: guidText(entry.subarray(0, 16)), guid: guidText(entry.subarray(16, 32)), name }
  })
  reader.end()
  return { diskGuid: guidText(header.subarray(56, 72)), partitions }
}

/** UEFI_PLATFORM_FIRMWARE_BLOB, or the second form with a description. Throws as `parseSignatureLists`. */
export function parseFirmwareBlob(data: Uint8Array, form: 1 | 2): FirmwareBlob {
  const reader = new ByteReader(data, 'UEFI_PLATFORM_FIRMWARE_BLOB')
  const description = form === 1 ? '' : String.fromCharCode(...reader.bytes(reader.u8())).replace(/\0+$/, '')
  const blob = { description, base: reader.u64le(), length: reader.u64le() }
  reader.end()
  return blob
}

/** UEFI_HANDOFF_TABLE_POINTERS, or the second form with a description: the tables' vendor GUIDs. Throws as above. */
export function parseHandoffTables(data: Uint8Array, form: 1 | 2): string[] {
  const reader = new ByteReader(data, 'UEFI_HANDOFF_TABLE_POINTERS')
  if (form === 2) reader.skip(reader.u8())
  const count = reader.u64le()
  if (count * BigInt(GUID_BYTES + 8) > BigInt(reader.remaining)) throw malformed(`${count} tables`)
  const guids = Array.from({ length: Number(count) }, () => {
    const guid = guidText(reader.bytes(GUID_BYTES))
    reader.skip(8)
    return guid
  })
  reader.end()
  return guids
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_UEFI_EVENT', `UEFI event: ${why}`)
}
