/** Strict reading of DER (ITU-T X.690), as much as keys and certificates need. Values are views of the bytes read. */
import { MalformedError } from '#protocol/errors'

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
  objectId: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
} as const

/** All values that follow one another in `bytes`. Throws `MalformedError` ERR_DER. */
export function readDer(bytes: Uint8Array): readonly DerValue[] {
  const values: DerValue[] = []
  for (let offset = 0; offset < bytes.length; ) {
    const value = readOne(bytes, offset)
    values.push(value)
    offset += value.encoded.length
  }
  return values
}

/** The one value that `bytes` consists of. Throws `MalformedError` ERR_DER. */
export function readSingle(bytes: Uint8Array, tag: number): DerValue {
  const [value, ...more] = readDer(bytes)
  return expectTag(more.length === 0 ? value : undefined, tag)
}

export function expectTag(value: DerValue | undefined, tag: number): DerValue {
  if (value?.tag !== tag) throw malformed(`a value of tag ${tag} is needed`)
  return value
}

/** Dotted form; arcs beyond 2⁵³ do not occur in what is compared here and are refused. */
export function readObjectId(value: DerValue | undefined): string {
  const { content } = expectTag(value, DER_TAG.objectId)
  const arcs: number[] = []
  let arc = 0
  let start = true
  for (const byte of content) {
    if (start && byte === 0x80) throw malformed('an arc of an object identifier is not in shortest form')
    arc = arc * 128 + (byte & 0x7f)
    if (!Number.isSafeInteger(arc)) throw malformed('an arc of an object identifier is too large')
    start = byte < 0x80
    if (!start) continue
    if (arcs.length === 0) {
      const root = Math.min(2, Math.floor(arc / 40))
      arcs.push(root, arc - 40 * root)
    } else arcs.push(arc)
    arc = 0
  }
  if (!start || arcs.length === 0) throw malformed('an object identifier ends within an arc')
  return arcs.join('.')
}

/** DER spells true as ff and nothing else. */
export function readBoolean(value: DerValue): boolean {
  const [byte, ...more] = expectTag(value, DER_TAG.boolean).content
  if (more.length > 0 || (byte !== 0 && byte !== 0xff)) throw malformed('a boolean is needed')
  return byte === 0xff
}

/** Non-negative, below 2³². */
export function readSmallInteger(value: DerValue): number {
  const { content } = expectTag(value, DER_TAG.integer)
  const [first = 0x80, second = 0x80] = content
  if (first >= 0x80 || content.length > 5 || (content.length > 1 && first === 0 && second < 0x80)) {
    throw malformed('a small non-negative integer in shortest form is needed')
  }
  const number = content.reduce((sum, byte) => sum * 256 + byte, 0)
  if (number > 0xffff_ffff) throw malformed('an integer is too large')
  return number
}

/** Bytes of a bit string without unused bits, as keys and signatures are. */
export function readBitBytes(value: DerValue | undefined): Uint8Array {
  const { content } = expectTag(value, DER_TAG.bitString)
  if (content[0] !== 0) throw malformed('a bit string of whole bytes is needed')
  return content.subarray(1)
}

/** UTCTime or GeneralizedTime in the only form certificates may use: seconds, UTC (RFC 5280 4.1.2.5). */
export function readTime(value: DerValue | undefined): Date {
  const text = ascii(value?.content ?? new Uint8Array())
  const short = value?.tag === DER_TAG.utcTime && /^\d{12}Z$/.test(text)
  const long = value?.tag === DER_TAG.generalizedTime && /^\d{14}Z$/.test(text)
  if (!short && !long) throw malformed('a time is needed')
  const full = short ? `${Number(text.slice(0, 2)) >= 50 ? '19' : '20'}${text}` : text
  const iso = full.replace(/^(....)(..)(..)(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6.000Z')
  const time = new Date(iso)
  // A date that does not exist is moved to one that does by some readers and refused by others.
  if (Number.isNaN(time.getTime()) || time.toISOString() !== iso) throw malformed(`there is no time ${text}`)
  return time
}

export function ascii(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, 8192))
}

function readOne(bytes: Uint8Array, start: number): DerValue {
  const tag = bytes[start]
  const first = bytes[start + 1]
  if (tag === undefined || first === undefined || (tag & 0x1f) === 0x1f) throw malformed(`no value at byte ${start}`)
  const count = first < 0x80 ? 0 : first & 0x7f
  if (first === 0x80 || count > 3) throw malformed(`length of ${count} bytes at byte ${start}`)
  const digits = bytes.subarray(start + 2, start + 2 + count)
  const length = count === 0 ? first : digits.reduce((sum, byte) => sum * 256 + byte, 0)
  if (count > 0 && (length < 0x80 || digits[0] === 0))
    throw malformed(`length at byte ${start} is not in shortest form`)
  const from = start + 2 + count
  const end = from + length
  if (digits.length !== count || end > bytes.length) throw malformed(`value at byte ${start} needs ${length} bytes`)
  return { tag, content: bytes.subarray(from, end), encoded: bytes.subarray(start, end) }
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_DER', `DER: ${why}`)
}
