/**
 * Strict reading of DER (ITU-T X.690), as much as certificates and revocation lists need. Values are views of the bytes
 * that were read, so reading costs no copy: callers that keep them own those bytes.
 */
import { MalformedError } from './errors.ts'

export interface DerValue {
  /** Identifier octet: class, constructed bit, number below 31. */
  readonly tag: number
  readonly content: Uint8Array
  /** Identifier, length and content. */
  readonly encoded: Uint8Array
}

export const DER_TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  objectId: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** All values that follow one another in `bytes`. Throws `MalformedError` ERR_DER. */
export function readDer(bytes: Uint8Array): DerValue[] {
  const values: DerValue[] = []
  for (let offset = 0; offset < bytes.length; ) {
    const value = readOne(bytes, offset)
    values.push(value)
    offset += value.size
  }
  return values
}

/** The one value that `bytes` consists of. Throws `MalformedError` ERR_DER. */
export function readSingleDer(bytes: Uint8Array, tag: number): DerValue {
  const [value, ...more] = readDer(bytes)
  if (value === undefined || value.tag !== tag || more.length > 0) throw malformed(`one value of tag ${tag} is needed`)
  return value
}

/** Dotted form. Throws `MalformedError` ERR_DER. */
export function readObjectId(value: DerValue): string {
  const { content } = value
  if (value.tag !== DER_TAG.objectId || content.length === 0) throw malformed('an object identifier is needed')
  let text = ''
  let arc = 0n
  let small = 0
  let start = true
  for (let index = 0; index < content.length; index++) {
    const byte = content[index] ?? 0
    if (start && byte === 0x80) throw malformed('an arc of an object identifier is not in shortest form')
    // Arcs beyond 2⁴² do occur (2.25 holds UUIDs), but never in the way of those that matter for speed.
    const wide = small >= 2 ** 42 || arc > 0n
    if (wide) arc = ((arc === 0n ? BigInt(small) : arc) << 7n) | BigInt(byte & 0x7f)
    else small = small * 128 + (byte & 0x7f)
    start = (byte & 0x80) === 0
    if (!start) continue
    if (text === '') text = arc > 0n ? firstArcs(arc) : firstSmallArcs(small)
    else text += `.${arc > 0n ? arc : small}`
    arc = 0n
    small = 0
  }
  if (!start) throw malformed('object identifier ends within an arc')
  return text
}

/** X.690 8.19.4: the first number holds two arcs. */
function firstArcs(number: bigint): string {
  const root = number < 40n ? 0n : number < 80n ? 1n : 2n
  return `${root}.${number - 40n * root}`
}

function firstSmallArcs(number: number): string {
  const root = number < 40 ? 0 : number < 80 ? 1 : 2
  return `${root}.${number - 40 * root}`
}

/** DER spells true as ff and nothing else. */
export function readBoolean(value: DerValue): boolean {
  const [byte, ...more] = value.content
  if (value.tag !== DER_TAG.boolean || more.length > 0 || (byte !== 0 && byte !== 0xff)) {
    throw malformed('a boolean is needed')
  }
  return byte === 0xff
}

/** Signed, of at most 64 bytes, in shortest form (X.690 8.3.2). Throws `MalformedError` ERR_DER. */
export function readInteger(value: DerValue): bigint {
  const { content } = value
  const first = content[0]
  const second = content[1]
  if (value.tag !== DER_TAG.integer || first === undefined || content.length > 64)
    throw malformed('an integer is needed')
  if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))) {
    throw malformed('an integer is not in shortest form')
  }
  let number = 0n
  for (const byte of content) number = (number << 8n) | BigInt(byte)
  return first >= 0x80 ? number - (1n << BigInt(8 * content.length)) : number
}

/** An integer that a number holds exactly, within limits. Throws `MalformedError` ERR_DER. */
export function readSmallInteger(value: DerValue, min: number, max: number): number {
  const number = readInteger(value)
  if (number < BigInt(min) || number > BigInt(max)) throw malformed(`integer ${number} is not from ${min} to ${max}`)
  return Number(number)
}

/** UTCTime or GeneralizedTime in the only form that certificates may use: seconds, no fraction, UTC (RFC 5280 4.1.2.5). */
export function readTime({ tag, content }: DerValue): Date {
  const yearDigits = tag === DER_TAG.utcTime ? 2 : 4
  const isTime = tag === DER_TAG.utcTime || tag === DER_TAG.generalizedTime
  if (
    !isTime ||
    content.length !== yearDigits + 11 ||
    content.at(-1) !== 0x5a ||
    !isDigits(content, content.length - 1)
  ) {
    throw malformed(`${JSON.stringify(ascii(content.subarray(0, 32)))} is not a time`)
  }
  const number = (at: number, digits: number): number => {
    let value = 0
    for (let index = at; index < at + digits; index++) value = value * 10 + (content[index] ?? 0) - 0x30
    return value
  }
  const short = number(0, yearDigits)
  const year = yearDigits === 4 ? short : short >= 50 ? 1900 + short : 2000 + short
  const rest = [0, 2, 4, 6, 8].map((offset) => number(yearDigits + offset, 2))
  const [month = 0, day = 0, hour = 0, minute = 0, second = 0] = rest
  const time = new Date(0)
  time.setUTCFullYear(year, month - 1, day)
  time.setUTCHours(hour, minute, second)
  // A date that does not exist is moved to one that does by some readers and refused by others.
  const exists =
    time.getUTCFullYear() === year &&
    time.getUTCMonth() === month - 1 &&
    time.getUTCDate() === day &&
    time.getUTCHours() === hour &&
    time.getUTCMinutes() === minute &&
    time.getUTCSeconds() === second
  if (!exists) throw malformed(`there is no time ${ascii(content)}`)
  return time
}

function isDigits(bytes: Uint8Array, length: number): boolean {
  for (let index = 0; index < length; index++) {
    const byte = bytes[index] ?? 0
    if (byte < 0x30 || byte > 0x39) return false
  }
  return true
}

export interface BitString {
  readonly bytes: Uint8Array
  /** Bits of the last byte that do not count; they are zero. */
  readonly unusedBits: number
}

/** Throws `MalformedError` ERR_DER. */
export function readBitString(value: DerValue): BitString {
  const unusedBits = value.content[0]
  const bytes = value.content.subarray(1)
  if (value.tag !== DER_TAG.bitString || unusedBits === undefined || unusedBits > 7) {
    throw malformed('a bit string is needed')
  }
  const last = bytes.at(-1)
  if (last === undefined ? unusedBits > 0 : (last & ((1 << unusedBits) - 1)) !== 0) {
    throw malformed('the unused bits of a bit string are not zero')
  }
  return { bytes, unusedBits }
}

/** A bit string of whole bytes, as keys and signatures are. Throws `MalformedError` ERR_DER. */
export function readByteString(value: DerValue): Uint8Array {
  const { bytes, unusedBits } = readBitString(value)
  if (unusedBits !== 0) throw malformed('a bit string of whole bytes is needed')
  return bytes
}

/** UTF8String, PrintableString or IA5String. Throws `MalformedError` ERR_DER. */
export function readString(value: DerValue): string {
  switch (value.tag) {
    case DER_TAG.utf8String:
      try {
        return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(value.content)
      } catch (cause) {
        throw malformed('a string is not UTF-8', cause)
      }
    case DER_TAG.printableString:
    case DER_TAG.ia5String:
      if (value.content.some((byte) => byte >= 0x80)) throw malformed('a string is not ASCII')
      return ascii(value.content)
    default:
      throw malformed('a string is needed')
  }
}

/** Length of the DER value at the start of `bytes`, with its header; for data that may be padded behind it. */
export function derLength(bytes: Uint8Array): number {
  return readOne(bytes, 0).size
}

/** Most values are looked at by content alone, so the view of the whole is made when it is asked for. */
class ReadValue implements DerValue {
  readonly tag: number
  readonly content: Uint8Array
  /** Of the whole, in bytes. */
  readonly size: number
  readonly #bytes: Uint8Array
  readonly #start: number

  constructor(bytes: Uint8Array, at: { tag: number; start: number; header: number; end: number }) {
    this.tag = at.tag
    this.content = bytes.subarray(at.start + at.header, at.end)
    this.size = at.end - at.start
    this.#bytes = bytes
    this.#start = at.start
  }

  get encoded(): Uint8Array {
    return this.#bytes.subarray(this.#start, this.#start + this.size)
  }
}

function readOne(bytes: Uint8Array, start: number): ReadValue {
  const tag = bytes[start]
  const first = bytes[start + 1]
  if (tag === undefined || first === undefined || (tag & 0x1f) === 0x1f) throw malformed(`no value at byte ${start}`)
  let length = first
  let header = 2
  if (first >= 0x80) {
    const count = first & 0x7f
    if (count === 0 || count > 3) throw malformed(`length of ${count} bytes at byte ${start}`)
    length = 0
    for (let index = 0; index < count; index++) length = (length << 8) | (bytes[start + 2 + index] ?? 0)
    header += count
    const minimal = count === 1 ? length >= 0x80 : length >= 1 << (8 * (count - 1))
    if (!minimal) throw malformed(`length at byte ${start} is not in shortest form`)
  }
  const end = start + header + length
  if (end > bytes.length) throw malformed(`value at byte ${start} needs ${length} bytes`)
  return new ReadValue(bytes, { tag, start, header, end })
}

function ascii(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += String.fromCharCode(byte)
  return text
}

function malformed(why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_DER', `DER: ${why}`, cause === undefined ? {} : { cause })
}
