/**
 * What the JSON form of sigstore's protobuf messages leaves to lenient readers: bytes must be base64 in its one form,
 * and 64-bit numbers non-negative decimals. The library that reads them takes anything.
 */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import type { JsonValue } from '../json/strict-json.ts'

/** Members of type bytes in Bundle and TrustedRoot and what they hold; names mean the same wherever they occur. */
const BYTES: ReadonlySet<string> = new Set([
  'rawBytes',
  'keyId',
  'digest',
  'signature',
  'sig',
  'payload',
  'signedEntryTimestamp',
  'signedTimestamp',
  'rootHash',
  'hashes',
  'canonicalizedBody',
])
const NUMBERS: ReadonlySet<string> = new Set(['logIndex', 'treeSize', 'integratedTime'])
const DECIMAL = /^(?:0|[1-9][0-9]{0,18})$/

/** Throws `MalformedError` ERR_BASE64 or ERR_IMAGE_SIGNATURE_FORMAT. */
export function requireProtobufJson(value: JsonValue, place: string): void {
  if (typeof value !== 'object' || value === null) return
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) requireProtobufJson(item, `${place}[${index}]`)
    return
  }
  for (const [name, member] of Object.entries(value)) {
    const here = `${place}.${name}`
    if (NUMBERS.has(name) && !isNatural(member)) {
      throw new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${here}: not a natural number`)
    }
    for (const text of BYTES.has(name) ? (Array.isArray(member) ? member : [member]) : []) {
      if (typeof text === 'string') fromBase64(text, here)
    }
    requireProtobufJson(member, here)
  }
}

function isNatural(value: JsonValue): boolean {
  return typeof value === 'string' ? DECIMAL.test(value) : Number.isSafeInteger(value) && (value as number) >= 0
}
