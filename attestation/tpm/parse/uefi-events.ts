/**
 * Contents of UEFI events (TCG PC Client Platform Firmware Profile 1.05, section 10.2.4 and following): variables, loaded
 * images, tagged events. Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'

export interface UefiVariable {
  /** 16 bytes, mixed-endian as on the wire. */
  readonly vendorGuid: Uint8Array
  readonly name: string
  readonly value: Uint8Array
}

export interface ImageLoadEvent {
  readonly location: bigint
  readonly length: bigint
  readonly linkTimeAddress: bigint
  readonly devicePath: Uint8Array
}

export interface TaggedEvent {
  readonly tag: number
  readonly value: Uint8Array
}

const MAX_NAME_CHARS = 1024

/** UEFI_VARIABLE_DATA. Throws `MalformedError` ERR_UEFI_EVENT, ERR_TRUNCATED or ERR_TRAILING_BYTES. */
export function parseUefiVariable(data: Uint8Array): UefiVariable {
  const reader = new ByteReader(data, 'UEFI_VARIABLE_DATA')
  const vendorGuid = reader.bytes(16)
  const nameChars = length(reader, MAX_NAME_CHARS)
  const valueBytes = length(reader, data.length)
  const name = new TextDecoder('utf-16le').decode(reader.bytes(2 * nameChars))
  const value = reader.bytes(valueBytes)
  reader.end()
  return { vendorGuid, name, value }
}

/** UEFI_IMAGE_LOAD_EVENT. Throws as `parseUefiVariable`. */
export function parseImageLoadEvent(data: Uint8Array): ImageLoadEvent {
  const reader = new ByteReader(data, 'UEFI_IMAGE_LOAD_EVENT')
  const event = {
    location: reader.u64le(),
    length: reader.u64le(),
    linkTimeAddress: reader.u64le(),
    devicePath: reader.bytes(length(reader, data.length)),
  }
  reader.end()
  return event
}

/** TCG_PCClientTaggedEvent. Throws as `parseUefiVariable`. */
export function parseTaggedEvent(data: Uint8Array): TaggedEvent {
  const reader = new ByteReader(data, 'TCG_PCClientTaggedEvent')
  const tag = reader.u32le()
  const value = reader.bytes(reader.u32le())
  reader.end()
  return { tag, value }
}

function length(reader: ByteReader, max: number): number {
  const value = reader.u64le()
  if (value > BigInt(max)) throw new MalformedError('ERR_UEFI_EVENT', `UEFI event: length ${value}, at most ${max}`)
  return Number(value)
}
