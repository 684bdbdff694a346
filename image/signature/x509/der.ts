/** What certificates and keys of images need of DER beside `#protocol/der`: values that may be missing, with their tag. */

import {
  DER_TAG,
  type DerValue,
  readByteString,
  readBoolean as readDerBoolean,
  readObjectId as readDerObjectId,
  readSmallInteger as readDerSmallInteger,
  readTime as readDerTime,
} from '#protocol/der'
import { MalformedError } from '#protocol/errors'

export { DER_TAG, type DerValue, readDer, readSingleDer as readSingle } from '#protocol/der'

/** Longer texts are cut: they are names and times, compared or shown. */
const MAX_ASCII = 8192

export function expectTag(value: DerValue | undefined, tag: number): DerValue {
  if (value?.tag !== tag) throw new MalformedError('ERR_DER', `DER: a value of tag ${tag} is needed`)
  return value
}

/** Dotted form. Throws `MalformedError` ERR_DER, as all functions here. */
export function readObjectId(value: DerValue | undefined): string {
  return readDerObjectId(expectTag(value, DER_TAG.objectId))
}

export function readBoolean(value: DerValue): boolean {
  return readDerBoolean(expectTag(value, DER_TAG.boolean))
}

/** Non-negative, below 2³². */
export function readSmallInteger(value: DerValue): number {
  return readDerSmallInteger(value, 0, 0xffff_ffff)
}

/** Bytes of a bit string without unused bits, as keys and signatures are. */
export function readBitBytes(value: DerValue | undefined): Uint8Array {
  return readByteString(expectTag(value, DER_TAG.bitString))
}

/** RFC 5280 section 4.1.2.5. */
export function readTime(value: DerValue | undefined): Date {
  if (value === undefined) throw new MalformedError('ERR_DER', 'DER: a time is needed')
  return readDerTime(value)
}

export function ascii(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, MAX_ASCII))
}
