/** Hexadecimal and base64 (RFC 4648), strict: Node 24 has no `Uint8Array.fromBase64` yet, and `atob` forgives too much. */
import { MalformedError } from './errors.ts'

const HEX_DIGITS = '0123456789abcdef'
const STANDARD = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const URL_SAFE = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += HEX_DIGITS.charAt(byte >> 4) + HEX_DIGITS.charAt(byte & 15)
  return text
}

/** Either case. Throws `MalformedError` ERR_HEX. @param what for the message */
export function fromHex(text: string, what: string): Uint8Array {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) {
    throw new MalformedError('ERR_HEX', `${what}: not hexadecimal`)
  }
  const bytes = new Uint8Array(text.length / 2)
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16)
  return bytes
}

/** With padding. */
export function toBase64(bytes: Uint8Array): string {
  const text = encode(bytes, STANDARD)
  return text + '='.repeat((4 - (text.length % 4)) % 4)
}

/** Without padding. */
export function toBase64Url(bytes: Uint8Array): string {
  return encode(bytes, URL_SAFE)
}

/** Padding is required, whitespace and stray bits are refused. Throws `MalformedError` ERR_BASE64. */
export function fromBase64(text: string, what: string): Uint8Array {
  if (text.length % 4 !== 0) throw new MalformedError('ERR_BASE64', `${what}: not base64: length ${text.length}`)
  const unpadded = text.endsWith('==') ? text.slice(0, -2) : text.endsWith('=') ? text.slice(0, -1) : text
  return decode(unpadded, STANDARD, what)
}

/** Without padding. Throws `MalformedError` ERR_BASE64. */
export function fromBase64Url(text: string, what: string): Uint8Array {
  return decode(text, URL_SAFE, what)
}

/** The concatenation of all parts in a new array. */
export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}

/** Plain equality, for public values; secrets are compared by `CryptoProvider.timingSafeEqual`. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index])
}

function encode(bytes: Uint8Array, alphabet: string): string {
  let text = ''
  let bits = 0
  let held = 0
  for (const byte of bytes) {
    held = (held << 8) | byte
    for (bits += 8; bits >= 6; bits -= 6) text += alphabet.charAt((held >> (bits - 6)) & 63)
    held &= (1 << bits) - 1
  }
  return bits === 0 ? text : text + alphabet.charAt((held << (6 - bits)) & 63)
}

const VALUES: Readonly<Record<string, ReadonlyMap<string, number>>> = {
  [STANDARD]: new Map(Array.from(STANDARD, (letter, value) => [letter, value])),
  [URL_SAFE]: new Map(Array.from(URL_SAFE, (letter, value) => [letter, value])),
}

function decode(text: string, alphabet: string, what: string): Uint8Array {
  const values = VALUES[alphabet]
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4))
  let bits = 0
  let held = 0
  let length = 0
  for (const letter of text) {
    const value = values?.get(letter)
    if (value === undefined) {
      throw new MalformedError('ERR_BASE64', `${what}: not base64: character ${JSON.stringify(letter)}`)
    }
    held = ((held << 6) | value) & 0xffff
    bits += 6
    if (bits >= 8) {
      bits -= 8
      bytes[length++] = (held >> bits) & 255
    }
  }
  // One letter alone cannot make a byte, and the bits left over must be zero: otherwise two texts mean the same bytes.
  if (bits >= 6 || (held & ((1 << bits) - 1)) !== 0) {
    throw new MalformedError('ERR_BASE64', `${what}: not base64: incomplete or not canonical at the end`)
  }
  return bytes
}
