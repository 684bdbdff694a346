/** Events in words, for the people who read a verdict; what their data says counts only where it was measured. */
import { MalformedError } from '#protocol/errors'
import { eventTypeName } from './event-types.ts'
import { parseImageLoadEvent, parseTaggedEvent, parseUefiVariable } from './uefi-events.ts'
import { parseFirmwareBlob, parseGptEvent, parseHandoffTables } from './uefi-structures.ts'

const MAX_CHARACTERS = 80

/** One line about an event: type, and what its data says where the form is known. Never throws. */
export function describeEvent(type: number, data: Uint8Array): string {
  const name = eventTypeName(type)
  try {
    const content = contentOf(name, data)
    return content === '' ? name : `${name}: ${content}`
  } catch (error) {
    if (error instanceof MalformedError) return `${name}: unreadable data`
    throw error
  }
}

function contentOf(name: string, data: Uint8Array): string {
  switch (name) {
    case 'EV_EFI_VARIABLE_DRIVER_CONFIG':
    case 'EV_EFI_VARIABLE_BOOT':
    case 'EV_EFI_VARIABLE_BOOT2':
    case 'EV_EFI_VARIABLE_AUTHORITY':
      return `variable ${JSON.stringify(parseUefiVariable(data).name)}`
    case 'EV_EFI_BOOT_SERVICES_APPLICATION':
    case 'EV_EFI_BOOT_SERVICES_DRIVER':
    case 'EV_EFI_RUNTIME_SERVICES_DRIVER':
      return `image of ${parseImageLoadEvent(data).length} bytes`
    case 'EV_EVENT_TAG': {
      const { tag, value } = parseTaggedEvent(data)
      return `0x${tag.toString(16)} ${printable(value)}`
    }
    case 'EV_EFI_ACTION':
    case 'EV_ACTION':
    case 'EV_IPL':
      return printable(data)
    case 'EV_EFI_GPT_EVENT': {
      const { diskGuid, partitions } = parseGptEvent(data)
      return `disk ${diskGuid} of ${partitions.length} partitions`
    }
    case 'EV_EFI_PLATFORM_FIRMWARE_BLOB': {
      const { base, length } = parseFirmwareBlob(data, 1)
      return `${length} bytes at 0x${base.toString(16)}`
    }
    case 'EV_EFI_PLATFORM_FIRMWARE_BLOB2': {
      const { description, length } = parseFirmwareBlob(data, 2)
      return `${JSON.stringify(description)}, ${length} bytes`
    }
    case 'EV_EFI_HANDOFF_TABLES':
      return `${parseHandoffTables(data, 1).length} tables`
    case 'EV_EFI_HANDOFF_TABLES2':
      return `${parseHandoffTables(data, 2).length} tables`
    default:
      return ''
  }
}

function printable(bytes: Uint8Array): string {
  const text = Array.from(bytes.subarray(0, MAX_CHARACTERS), (byte) => String.fromCharCode(byte)).join('')
  return JSON.stringify(text.replace(/\0+$/, ''))
}
