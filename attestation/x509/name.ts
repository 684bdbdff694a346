/** Distinguished names (RFC 5280 sections 4.1.2.4 and 7.1). */

import { DER_TAG, type DerValue, readDer, readObjectId, readString } from '#protocol/der'
import { toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

const SHORT_NAMES: Readonly<Record<string, string>> = {
  '2.5.4.3': 'CN',
  '2.5.4.6': 'C',
  '2.5.4.7': 'L',
  '2.5.4.8': 'ST',
  '2.5.4.10': 'O',
  '2.5.4.11': 'OU',
}

interface Attribute {
  readonly oid: string
  readonly value: DerValue
}

/**
 * Same name? Equal bytes, or the same attributes in the same order once their texts are compared without case and
 * without surplus white space, whatever string type spells them. @param a, b DER of a Name
 */
export function sameName(a: Uint8Array, b: Uint8Array): boolean {
  if (Buffer.compare(a, b) === 0) return true
  return comparable(a) === comparable(b)
}

/** For people: "CN=SEV-Milan, O=Advanced Micro Devices, …". @param name DER of a Name */
export function nameText(name: Uint8Array): string {
  return readAttributes(name)
    .flat()
    .map(({ oid, value }) => `${SHORT_NAMES[oid] ?? oid}=${textOf(value) ?? toHex(value.content)}`)
    .join(', ')
}

/** The first value of an attribute, by its object identifier. @param name DER of a Name */
export function nameAttribute(name: Uint8Array, oid: string): string | undefined {
  const found = readAttributes(name)
    .flat()
    .find((attribute) => attribute.oid === oid)?.value
  return found === undefined ? undefined : textOf(found)
}

/** Throws `MalformedError` ERR_CERTIFICATE or ERR_DER unless it is a Name. */
export function checkName(value: DerValue): void {
  if (value.tag !== DER_TAG.sequence) throw new MalformedError('ERR_CERTIFICATE', 'a name is needed')
  readAttributes(value.encoded)
}

/** Names are compared with many others, and never change. */
const comparables = new WeakMap<Uint8Array, string>()

/** Relative distinguished names as texts that are equal where the names are. */
function comparable(name: Uint8Array): string {
  const known = comparables.get(name)
  if (known !== undefined) return known
  const text = JSON.stringify(comparableParts(name))
  comparables.set(name, text)
  return text
}

function comparableParts(name: Uint8Array): string[] {
  return readAttributes(name).map((set) =>
    set
      .map(({ oid, value }) => {
        const text = textOf(value)?.trim().replace(/\s+/g, ' ').toLowerCase()
        return text === undefined ? `${oid}#${toHex(value.encoded)}` : `${oid}=${text}`
      })
      .sort()
      .join('+'),
  )
}

/** Undefined for string types that are not read, and for bytes that are no text: those are compared as they are. */
function textOf(value: DerValue): string | undefined {
  try {
    return readString(value)
  } catch {
    return undefined
  }
}

/** One list per relative distinguished name. */
function readAttributes(name: Uint8Array): Attribute[][] {
  const [sequence] = readDer(name)
  return readDer(sequence?.content ?? new Uint8Array()).map((set) => {
    if (set.tag !== DER_TAG.set) throw new MalformedError('ERR_CERTIFICATE', 'a name consists of sets')
    return readDer(set.content).map((attribute) => {
      const [id, value, ...more] = attribute.tag === DER_TAG.sequence ? readDer(attribute.content) : []
      if (id === undefined || value === undefined || more.length > 0) {
        throw new MalformedError('ERR_CERTIFICATE', 'an attribute of a name has a type and a value')
      }
      return { oid: readObjectId(id), value }
    })
  })
}
