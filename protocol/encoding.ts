/** Hexadecimal and base64 (RFC 4648), strict: Node 24 has no `Uint8Array.fromBase64` yet, and `atob` forgives too much. */
import { MalformedError } from './errors.ts'

/**
 * Node's own coders, ten times as fast; other engines have none. Its decoder forgives: what it read counts when it is
 * spelled again exactly as it came.
 */
const NATIVE: typeof Buffer | undefined = globalThis.Buffer
/** Below it, the way into native code costs more. */
const NATIVE_FROM = 24

/** Two digits for each byte. */
const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
const STANDARD = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const URL_SAFE = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

export function toHex(bytes: Uint8Array): string {
  if (NATIVE !== undefined && bytes.length >= NATIVE_FROM) return viewOf(NATIVE, bytes).toString('hex')
  let text = ''
  for (const byte of bytes) text += HEX[byte]
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
  if (a.length !== b.length) return false
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false
  return true
}

function viewOf(native: typeof Buffer, { buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return native.from(buffer, byteOffset, byteLength)
}

function encode(bytes: Uint8Array, alphabet: string): string {
  if (NATIVE !== undefined && bytes.length >= NATIVE_FROM) {
    const text = viewOf(NATIVE, bytes).toString(alphabet === STANDARD ? 'base64' : 'base64url')
    return text.endsWith('=') ? text.slice(0, text.indexOf('=')) : text
  }
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

/** Value of each letter by its code, 0xff for what is none. */
function valuesOf(alphabet: string): Uint8Array {
  const values = new Uint8Array(128).fill(0xff)
  for (let value = 0; value < alphabet.length; value++) values[alphabet.charCodeAt(value)] = value
  return values
}

const VALUES: Readonly<Record<string, Uint8Array>> = {
  [STANDARD]: valuesOf(STANDARD),
  [URL_SAFE]: valuesOf(URL_SAFE),
}

function decode(text: string, alphabet: string, what: string): Uint8Array {
  if (NATIVE !== undefined && text.length >= NATIVE_FROM) {
    // Into the array itself: a buffer of Node's would leave keys in memory that it shares out again.
    const bytes = new Uint8Array(Math.floor((text.length * 3) / 4))
    viewOf(NATIVE, bytes).write(text, 'base64')
    if (encode(bytes, alphabet) === text) return bytes
  }
  const values = VALUES[alphabet]
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4))
  let bits = 0
  let held = 0
  let length = 0
  for (let at = 0; at < text.length; at++) {
    const value = values?.[text.charCodeAt(at)] ?? 0xff
    if (value === 0xff) {
      throw new MalformedError('ERR_BASE64', `${what}: not base64: character ${JSON.stringify(text.charAt(at))}`)
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
