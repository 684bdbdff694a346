/** Strict reading of DER (ITU-T X.690), as much as certificates need. */
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
  sequence: 0x30,
} as const

/** All values that follow one another in `bytes`. Throws `MalformedError` ERR_DER. */
export function readDer(bytes: Uint8Array): DerValue[] {
  const values: DerValue[] = []
  for (let offset = 0; offset < bytes.length; ) {
    const value = readOne(bytes, offset)
    values.push(value)
    offset += value.encoded.length
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
  if (value.tag !== DER_TAG.objectId || value.content.length === 0) throw malformed('an object identifier is needed')
  const arcs: bigint[] = []
  let arc = 0n
  value.content.forEach((byte, index) => {
    arc = (arc << 7n) | BigInt(byte & 0x7f)
    if ((byte & 0x80) !== 0) {
      if (index === value.content.length - 1) throw malformed('object identifier ends within an arc')
      return
    }
    arcs.push(arc)
    arc = 0n
  })
  const [first = 0n, ...rest] = arcs
  const root = first < 40n ? 0n : first < 80n ? 1n : 2n
  return [root, first - 40n * root, ...rest].join('.')
}

/** DER spells true as ff and nothing else. */
export function readBoolean(value: DerValue): boolean {
  const [byte, ...more] = value.content
  if (value.tag !== DER_TAG.boolean || more.length > 0 || (byte !== 0 && byte !== 0xff)) {
    throw malformed('a boolean is needed')
  }
  return byte === 0xff
}

/** Length of the DER value at the start of `bytes`, with its header; for data that may be padded behind it. */
export function derLength(bytes: Uint8Array): number {
  return readOne(bytes, 0).encoded.length
}

function readOne(bytes: Uint8Array, start: number): DerValue {
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
  return { tag, content: bytes.slice(start + header, end), encoded: bytes.slice(start, end) }
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_DER', `DER: ${why}`)
}
