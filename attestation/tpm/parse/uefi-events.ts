/**
 * Contents of UEFI events (TCG PC Client Platform Firmware Profile 1.05, section 10.2.4 and following): variables, loaded
 * images, tagged events. Little-endian.
 */
import { ByteReader } from '#protocol/byte-reader'
import { MalformedError } from '#protocol/errors'

/** Event types by number, spelt as the specification spells them. */
export const EVENT_TYPES: Readonly<Record<number, string>> = {
  1: 'EV_POST_CODE',
  3: 'EV_NO_ACTION',
  4: 'EV_SEPARATOR',
  5: 'EV_ACTION',
  6: 'EV_EVENT_TAG',
  7: 'EV_S_CRTM_CONTENTS',
  8: 'EV_S_CRTM_VERSION',
  9: 'EV_CPU_MICROCODE',
  10: 'EV_PLATFORM_CONFIG_FLAGS',
  11: 'EV_TABLE_OF_DEVICES',
  12: 'EV_COMPACT_HASH',
  13: 'EV_IPL',
  14: 'EV_IPL_PARTITION_DATA',
  2147483649: 'EV_EFI_VARIABLE_DRIVER_CONFIG',
  2147483650: 'EV_EFI_VARIABLE_BOOT',
  2147483651: 'EV_EFI_BOOT_SERVICES_APPLICATION',
  2147483652: 'EV_EFI_BOOT_SERVICES_DRIVER',
  2147483653: 'EV_EFI_RUNTIME_SERVICES_DRIVER',
  2147483654: 'EV_EFI_GPT_EVENT',
  2147483655: 'EV_EFI_ACTION',
  2147483656: 'EV_EFI_PLATFORM_FIRMWARE_BLOB',
  2147483657: 'EV_EFI_HANDOFF_TABLES',
  2147483658: 'EV_EFI_PLATFORM_FIRMWARE_BLOB2',
  2147483659: 'EV_EFI_HANDOFF_TABLES2',
  2147483660: 'EV_EFI_VARIABLE_BOOT2',
  2147483664: 'EV_EFI_HCRTM_EVENT',
  2147483872: 'EV_EFI_VARIABLE_AUTHORITY',
}

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

export function eventTypeName(type: number): string {
  return EVENT_TYPES[type] ?? `0x${type.toString(16)}`
}

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

/** One line about an event for people: type, and what its data says where the form is known. Never throws. */
export function describeEvent(type: number, data: Uint8Array): string {
  const name = eventTypeName(type)
  try {
    switch (name) {
      case 'EV_EFI_VARIABLE_DRIVER_CONFIG':
      case 'EV_EFI_VARIABLE_BOOT':
      case 'EV_EFI_VARIABLE_BOOT2':
      case 'EV_EFI_VARIABLE_AUTHORITY':
        return `${name}: variable ${JSON.stringify(parseUefiVariable(data).name)}`
      case 'EV_EFI_BOOT_SERVICES_APPLICATION':
      case 'EV_EFI_BOOT_SERVICES_DRIVER':
      case 'EV_EFI_RUNTIME_SERVICES_DRIVER':
        return `${name}: image of ${parseImageLoadEvent(data).length} bytes`
      case 'EV_EVENT_TAG': {
        const { tag, value } = parseTaggedEvent(data)
        return `${name}: 0x${tag.toString(16)} ${printable(value)}`
      }
      case 'EV_EFI_ACTION':
      case 'EV_ACTION':
        return `${name}: ${printable(data)}`
      default:
        return name
    }
  } catch (error) {
    if (error instanceof MalformedError) return `${name}: unreadable data`
    throw error
  }
}

function length(reader: ByteReader, max: number): number {
  const value = reader.u64le()
  if (value > BigInt(max)) throw new MalformedError('ERR_UEFI_EVENT', `UEFI event: length ${value}, at most ${max}`)
  return Number(value)
}

function printable(bytes: Uint8Array): string {
  const text = Array.from(bytes.subarray(0, 80), (byte) => String.fromCharCode(byte)).join('')
  return JSON.stringify(text.replace(/\0+$/, ''))
}
