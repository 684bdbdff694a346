/** Bytes as the writers of evidence put them into JSON: arrays of numbers, hexadecimal, base64 of either alphabet, PEM. */
import type { JsonFields } from '#protocol/json-fields'
import { decodeText } from '../../evidence/text-encoding.ts'

/**
 * PEM is handed on as its text. Throws `MalformedError` with the code of the fields.
 * @param max bytes
 */
export function bytesOfJson(fields: JsonFields, name: string, max: number): Uint8Array {
  const value = fields.json(name)
  if (Array.isArray(value)) return Uint8Array.from(fields.integers(name, { maxItems: max, min: 0, max: 255 }))
  const text = fields.string(name, 3 * max + 64)
  const bytes = text.startsWith('-----BEGIN ') ? new TextEncoder().encode(text) : decodeText(text)?.bytes
  if (bytes === undefined) throw fields.error(name, 'neither hexadecimal, base64 nor PEM')
  if (bytes.length > max) throw fields.error(name, `${bytes.length} bytes, at most ${max} are read`)
  return bytes
}
