/**
 * What AMD's certificate of an endorsement key says of the key (AMD 57230, section 3; extensions 1.3.6.1.4.1.3704.1.*): the
 * product, the TCB version that the key is derived from, and the chip, or the cloud provider that leases the key.
 */

import { DER_TAG, readDer, readSingleDer, readSmallInteger, readString } from '#protocol/der'
import { MalformedError } from '#protocol/errors'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import { type ProductLine, productOfName } from '../product.ts'
import { TCB_BYTES } from './tcb.ts'

const ARC = '1.3.6.1.4.1.3704.1.'
const OID = { structVersion: '1', productName: '2', hwid: '4', cspId: '5' } as const
/** Turin's chips have ids of 8 bytes; a field of 64 holds them, too. */
const HWID_BYTES: Readonly<Record<ProductLine, readonly number[]>> = { Milan: [64], Genoa: [64], Turin: [8, 64] }

/** Place of each security patch level (extension 3.x) in a TCB version. Before Turin levels 4 to 7 are zero. */
const LEVELS_BEFORE_TURIN: readonly string[] = ['3.1', '3.2', '3.4', '3.5', '3.6', '3.7', '3.3', '3.8']
const LEVELS_TURIN: readonly string[] = ['3.9', '3.1', '3.2', '3.3', '3.5', '3.6', '3.7', '3.8']
/** Levels that mean nothing yet: a certificate may leave them out. */
const RESERVED_LEVELS: readonly string[] = ['3.4', '3.5', '3.6', '3.7']

export interface VekExtensions {
  readonly structVersion: number
  /** As it is written: "Milan-B0". */
  readonly productName: string
  readonly product: ProductLine
  /** Laid out as in a report of this product, 8 bytes. */
  readonly tcb: Uint8Array
  /** Of VCEKs. */
  readonly hwid: Uint8Array | undefined
  /** Of VLEKs. */
  readonly cspId: string | undefined
}

/**
 * Throws `MalformedError` ERR_SNP_VEK or ERR_DER when an extension is missing, unknown within AMD's arc, or does not have
 * its type.
 */
export function parseVekExtensions(certificate: ParsedCertificate): VekExtensions {
  const own = new Map(
    certificate.extensions
      .filter(({ oid }) => oid.startsWith(ARC))
      .map(({ oid, value }): [string, Uint8Array] => [oid.slice(ARC.length), value]),
  )
  const productName = ia5(own, OID.productName)
  const product = productOfName(productName)
  if (product === undefined) throw malformed(`product ${JSON.stringify(productName.slice(0, 64))} is not known`)
  const layout = product === 'Turin' ? LEVELS_TURIN : LEVELS_BEFORE_TURIN
  const known: readonly string[] = [...Object.values(OID), ...layout, ...RESERVED_LEVELS]
  const unknown = [...own.keys()].filter((name) => !known.includes(name))
  if (unknown.length > 0) throw malformed(`unknown extension ${ARC}${unknown.join(', ')}`)
  if (RESERVED_LEVELS.some((name) => !layout.includes(name) && level(own, name) !== 0)) {
    throw malformed('a level that has no place in the TCB of this product')
  }
  const hwid = own.get(OID.hwid)
  return {
    structVersion: level(own, OID.structVersion),
    productName,
    product,
    tcb: Uint8Array.from({ length: TCB_BYTES }, (_, at) => level(own, layout[at] ?? '')),
    hwid: hwid === undefined ? undefined : readHwid(hwid, HWID_BYTES[product]),
    cspId: own.has(OID.cspId) ? ia5(own, OID.cspId) : undefined,
  }
}

/** Has the certificate any of AMD's extensions? */
export function hasVekExtensions(certificate: ParsedCertificate): boolean {
  return certificate.extensions.some(({ oid }) => oid.startsWith(ARC))
}

function level(own: ReadonlyMap<string, Uint8Array>, name: string): number {
  const value = own.get(name)
  if (value === undefined && RESERVED_LEVELS.includes(name)) return 0
  return readSmallInteger(readSingleDer(required(value, name), DER_TAG.integer), 0, 255)
}

function ia5(own: ReadonlyMap<string, Uint8Array>, name: string): string {
  return readString(readSingleDer(required(own.get(name), name), DER_TAG.ia5String))
}

/** AMD writes the bytes themselves; in some certificates they are an OCTET STRING, as they should be. */
function readHwid(value: Uint8Array, lengths: readonly number[]): Uint8Array {
  if (lengths.includes(value.length)) return value
  const [wrapped, ...more] = lengths.includes(value.length - 2) ? readDer(value) : []
  if (wrapped?.tag !== DER_TAG.octetString || more.length > 0 || !lengths.includes(wrapped.content.length)) {
    throw malformed(`a hardware id of ${value.length} bytes; ${lengths.join(' or ')} are needed`)
  }
  return wrapped.content
}

function required(value: Uint8Array | undefined, name: string): Uint8Array {
  if (value === undefined) throw malformed(`extension ${ARC}${name} is missing`)
  return value
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_SNP_VEK', `certificate of an endorsement key: ${why}`)
}
