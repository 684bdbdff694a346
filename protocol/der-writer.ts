/** Writing DER (ITU-T X.690): as much as certificates and requests for them need. Runs on any engine. */
import { concatBytes } from './encoding.ts'

const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectId: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** @param tag identifier octet, its number below 31 */
export function derValue(tag: number, ...contents: readonly Uint8Array[]): Uint8Array {
  const content = concatBytes(...contents)
  return concatBytes(Uint8Array.of(tag), lengthOctets(content.length), content)
}

export function derSequence(...members: readonly Uint8Array[]): Uint8Array {
  return derValue(TAG.sequence, ...members)
}

/** Of one member: several would have to be ordered. */
export function derSet(member: Uint8Array): Uint8Array {
  return derValue(TAG.set, member)
}

/** Context-specific tag around values (explicit). */
export function derTagged(number: number, ...contents: readonly Uint8Array[]): Uint8Array {
  return derValue(0xa0 | number, ...contents)
}

/** Context-specific tag in place of a primitive value's own (implicit). */
export function derPrimitive(number: number, content: Uint8Array): Uint8Array {
  return derValue(0x80 | number, content)
}

export function derBoolean(value: boolean): Uint8Array {
  return derValue(TAG.boolean, Uint8Array.of(value ? 0xff : 0))
}

/** @param magnitude of a number that is not negative, big-endian, leading zeros allowed */
export function derInteger(magnitude: Uint8Array): Uint8Array {
  let start = 0
  while (start < magnitude.length - 1 && magnitude[start] === 0) start++
  const shortest = magnitude.length === 0 ? Uint8Array.of(0) : magnitude.subarray(start)
  // X.690 8.3: two's complement, so a leading one bit needs a zero byte before it.
  const sign = (shortest[0] ?? 0) >= 0x80 ? Uint8Array.of(0) : new Uint8Array()
  return derValue(TAG.integer, sign, shortest)
}

/** @param unusedBits of the last byte; they must be zero */
export function derBitString(bytes: Uint8Array, unusedBits = 0): Uint8Array {
  return derValue(TAG.bitString, Uint8Array.of(unusedBits), bytes)
}

export function derOctetString(bytes: Uint8Array): Uint8Array {
  return derValue(TAG.octetString, bytes)
}

export function derUtf8String(text: string): Uint8Array {
  return derValue(TAG.utf8String, new TextEncoder().encode(text))
}

/** @param dotted "1.2.840.10045.2.1", each arc below 2³² */
export function derObjectId(dotted: string): Uint8Array {
  const [root = 0, second = 0, ...arcs] = dotted.split('.').map(Number)
  return derValue(TAG.objectId, ...[40 * root + second, ...arcs].map(base128))
}

/** RFC 5280 section 4.1.2.5: whole seconds, UTCTime through 2049, GeneralizedTime afterwards. */
export function derTime(at: Date): Uint8Array {
  const digits = `${at.toISOString().slice(0, 19).replace(/[-:T]/g, '')}Z`
  const short = at.getUTCFullYear() < 2050
  return derValue(short ? TAG.utcTime : TAG.generalizedTime, new TextEncoder().encode(short ? digits.slice(2) : digits))
}

/** Members of an ECDSA signature (RFC 3279 section 2.2.3). @param signature R ‖ S, of equal length */
export function derEcdsaSignature(signature: Uint8Array): Uint8Array {
  const half = signature.length / 2
  return derSequence(derInteger(signature.subarray(0, half)), derInteger(signature.subarray(half)))
}

function base128(arc: number): Uint8Array {
  const octets = [arc % 128]
  for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) octets.unshift(0x80 | (rest % 128))
  return Uint8Array.from(octets)
}

function lengthOctets(length: number): Uint8Array {
  if (length < 0x80) return Uint8Array.of(length)
  const octets: number[] = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256)
  return Uint8Array.of(0x80 | octets.length, ...octets)
}
