/**
 * Text forms of bytes, strict in both directions: a decoder accepts exactly what its encoder writes (RFC 4648 section
 * 3.5 asks for canonical encodings), so one value has one spelling and nothing can be smuggled in padding bits.
 */
import { MalformedError } from './errors.ts'

const STANDARD = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const URL_SAFE = `${STANDARD.slice(0, 62)}-_`
const HEX = '0123456789abcdef'

/** Lower-case hex. */
export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += HEX.charAt(byte >> 4) + HEX.charAt(byte & 15)
  return text
}

/** @throws MalformedError ERR_HEX unless `text` is an even number of hex digits (either case). */
export function fromHex(text: string): Uint8Array<ArrayBuffer> {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) {
    throw new MalformedError('ERR_HEX', `not an even number of hex digits (${text.length} characters)`)
  }
  const bytes = new Uint8Array(text.length / 2)
  for (let index = 0; index < bytes.length; index++) {
    bytes[index] = Number.parseInt(text.slice(index * 2, index * 2 + 2), 16)
  }
  return bytes
}

/** RFC 4648 section 4, with padding. */
export function toBase64(bytes: Uint8Array): string {
  return encode(bytes, STANDARD, true)
}

/** RFC 4648 section 5, without padding. */
export function toBase64Url(bytes: Uint8Array): string {
  return encode(bytes, URL_SAFE, false)
}

/** @throws MalformedError ERR_BASE64 unless `text` is canonical, padded, standard base64. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  if (text.length % 4 !== 0) throw notBase64('standard base64 with padding', text)
  return decode(text.replace(/={1,2}$/, ''), STANDARD_VALUES, 'standard base64 with padding')
}

/** @throws MalformedError ERR_BASE64 unless `text` is canonical base64url without padding. */
export function fromBase64Url(text: string): Uint8Array<ArrayBuffer> {
  return decode(text, URL_SAFE_VALUES, 'base64url without padding')
}

const STANDARD_VALUES = valueTable(STANDARD)
const URL_SAFE_VALUES = valueTable(URL_SAFE)

function valueTable(alphabet: string): Uint8Array {
  const table = new Uint8Array(128).fill(255)
  for (let index = 0; index < alphabet.length; index++) table[alphabet.charCodeAt(index)] = index
  return table
}

function encode(bytes: Uint8Array, alphabet: string, padded: boolean): string {
  let text = ''
  for (let index = 0; index < bytes.length; index += 3) {
    const left = bytes.length - index
    const word = ((bytes[index] ?? 0) << 16) | ((bytes[index + 1] ?? 0) << 8) | (bytes[index + 2] ?? 0)
    text += alphabet.charAt(word >> 18) + alphabet.charAt((word >> 12) & 63)
    if (left > 1) text += alphabet.charAt((word >> 6) & 63)
    else if (padded) text += '='
    if (left > 2) text += alphabet.charAt(word & 63)
    else if (padded) text += '='
  }
  return text
}

function decode(text: string, values: Uint8Array, form: string): Uint8Array<ArrayBuffer> {
  if (text.length % 4 === 1) throw notBase64(form, text)
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4))
  let written = 0
  let word = 0
  let bits = 0
  for (let index = 0; index < text.length; index++) {
    const value = values[text.charCodeAt(index)] ?? 255
    if (value === 255) throw notBase64(form, text)
    word = ((word << 6) | value) & 0xffff
    bits += 6
    if (bits >= 8) {
      bits -= 8
      bytes[written++] = (word >> bits) & 255
    }
  }
  if ((word & ((1 << bits) - 1)) !== 0) throw notBase64(form, text)
  return bytes
}

function notBase64(form: string, text: string): MalformedError {
  return new MalformedError('ERR_BASE64', `not ${form} (${text.length} characters)`)
}
