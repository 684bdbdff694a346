/** Bytes as the writers of evidence put them into JSON: arrays of numbers, hexadecimal, base64 of either alphabet, PEM. */
import type { JsonValue } from '#protocol/canonical-json'
import type { JsonFields } from '#protocol/json-fields'
import { decodeText } from '../../evidence/text-encoding.ts'

/**
 * PEM is handed on as its text. Throws `MalformedError` with the code of the fields.
 * @param max bytes
 */
export function bytesOfJson(fields: JsonFields, name: string, max: number): Uint8Array {
  const bytes = bytesOfValue(fields.json(name), max)
  if (bytes === undefined)
    throw fields.error(name, `neither hexadecimal, base64, PEM nor numbers of at most ${max} bytes`)
  return bytes
}

/** Undefined for a value that is none of these, or longer than `max` bytes. */
export function bytesOfValue(value: JsonValue, max: number): Uint8Array | undefined {
  if (Array.isArray(value)) {
    return value.length <= max && value.every(isByte) ? Uint8Array.from(value) : undefined
  }
  if (typeof value !== 'string' || value.length > 3 * max + 64) return undefined
  const bytes = value.startsWith('-----BEGIN ') ? new TextEncoder().encode(value) : decodeText(value)?.bytes
  return bytes !== undefined && bytes.length <= max ? bytes : undefined
}

function isByte(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 255
}
