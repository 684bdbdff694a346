/** Extensions of certificates and revocation lists (RFC 5280 sections 4.2 and 5.2). */

import {
  DER_TAG,
  type DerValue,
  readBitString,
  readBoolean,
  readDer,
  readObjectId,
  readSingleDer,
  readSmallInteger,
} from '#protocol/der'
import { MalformedError } from '#protocol/errors'

export interface Extension {
  readonly oid: string
  readonly critical: boolean
  /** Content of the OCTET STRING. */
  readonly value: Uint8Array
}

/** Undefined when the extension is absent. */
export type BasicConstraints = { readonly ca: boolean; readonly pathLength: number | undefined } | undefined

/** Bit numbers of RFC 5280 section 4.2.1.3. */
export type KeyUsage = 'digitalSignature' | 'keyEncipherment' | 'keyAgreement' | 'keyCertSign' | 'cRLSign' | 'other'

const KEY_USAGES: Readonly<Record<number, KeyUsage>> = {
  0: 'digitalSignature',
  2: 'keyEncipherment',
  4: 'keyAgreement',
  5: 'keyCertSign',
  6: 'cRLSign',
}

const MAX_EXTENSIONS = 128

/** @param list the SEQUENCE OF Extension. Throws `MalformedError` ERR_CERTIFICATE or ERR_DER. */
export function readExtensions(list: DerValue): Extension[] {
  if (list.tag !== DER_TAG.sequence) throw malformed('extensions are a sequence')
  const extensions = readDer(list.content).map((extension) => {
    const parts = extension.tag === DER_TAG.sequence ? readDer(extension.content) : []
    const [id, second] = parts
    const value = parts.at(-1)
    if (id === undefined || value?.tag !== DER_TAG.octetString || parts.length > 3) {
      throw malformed('extension without a value')
    }
    // An explicit "not critical" is not DER, but is found in certificates of real TPMs.
    const critical = parts.length === 3 && second !== undefined ? readBoolean(second) : false
    return { oid: readObjectId(id), critical, value: value.content }
  })
  if (extensions.length > MAX_EXTENSIONS) throw malformed(`${extensions.length} extensions`)
  // RFC 5280 4.2: no extension twice. Two readers could each see another one.
  if (new Set(extensions.map(({ oid }) => oid)).size !== extensions.length) throw malformed('an extension occurs twice')
  return extensions
}

export function readBasicConstraints(value: Uint8Array | undefined): BasicConstraints {
  if (value === undefined) return undefined
  const parts = readDer(readSingleDer(value, DER_TAG.sequence).content)
  const flag = parts[0]?.tag === DER_TAG.boolean ? parts.shift() : undefined
  const length = parts[0]?.tag === DER_TAG.integer ? parts.shift() : undefined
  if (parts.length > 0) throw malformed('basic constraints hold a flag and a length')
  const ca = flag === undefined ? false : readBoolean(flag)
  // A path length beyond 255 does not limit any chain that is accepted here.
  const pathLength = length === undefined ? undefined : Math.min(255, readSmallInteger(length, 0, 2 ** 31))
  return { ca, pathLength }
}

export function readKeyUsage(value: Uint8Array | undefined): ReadonlySet<KeyUsage> | undefined {
  if (value === undefined) return undefined
  const { bytes, unusedBits } = readBitString(readSingleDer(value, DER_TAG.bitString))
  const usages = new Set<KeyUsage>()
  for (let bit = 0; bit < 8 * bytes.length - unusedBits; bit++) {
    if ((((bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1) === 1) usages.add(KEY_USAGES[bit] ?? 'other')
  }
  return usages
}

export function readExtendedKeyUsage(value: Uint8Array | undefined): readonly string[] | undefined {
  return value === undefined ? undefined : readDer(readSingleDer(value, DER_TAG.sequence).content).map(readObjectId)
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_CERTIFICATE', why)
}
