/**
 * What `node:crypto` does not tell about an X.509 certificate (RFC 5280 section 4.1): constraints, key usages, criticality
 * and signature algorithm. Nothing is judged here.
 */
import { type KeyObject, X509Certificate } from 'node:crypto'
import { MalformedError } from '#protocol/errors'
import { DER_TAG, type DerValue, readBoolean, readDer, readObjectId, readSingleDer } from '../parse/der.ts'

export interface ParsedCertificate {
  readonly x509: X509Certificate
  readonly publicKey: KeyObject
  readonly der: Uint8Array
  readonly signatureAlgorithm: string
  /** Undefined when the extension is absent. */
  readonly basicConstraints: { readonly ca: boolean; readonly pathLength: number | undefined } | undefined
  readonly keyUsage: ReadonlySet<KeyUsage> | undefined
  readonly extendedKeyUsage: readonly string[] | undefined
  /** Critical extensions that are not interpreted here. */
  readonly unknownCritical: readonly string[]
}

/** Bit numbers of RFC 5280 section 4.2.1.3. */
export type KeyUsage = 'digitalSignature' | 'keyEncipherment' | 'keyAgreement' | 'keyCertSign' | 'other'

const KEY_USAGES: Readonly<Record<number, KeyUsage>> = {
  0: 'digitalSignature',
  2: 'keyEncipherment',
  4: 'keyAgreement',
  5: 'keyCertSign',
}

const OID = {
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  extendedKeyUsage: '2.5.29.37',
} as const

const EXTENSIONS_TAG = 0xa3

/** DER or PEM. Throws `MalformedError` ERR_CERTIFICATE or ERR_DER. */
export function parseCertificate(certificate: Uint8Array | string): ParsedCertificate {
  let x509: X509Certificate
  let publicKey: KeyObject
  try {
    x509 = new X509Certificate(certificate)
    publicKey = x509.publicKey // decoded when asked for, so this throws for a broken key
  } catch (cause) {
    throw new MalformedError('ERR_CERTIFICATE', 'not an X.509 certificate', { cause })
  }
  const der = new Uint8Array(x509.raw)
  if (typeof certificate !== 'string' && der.length !== certificate.length) {
    throw new MalformedError('ERR_CERTIFICATE', `certificate of ${der.length} bytes, followed by others`)
  }
  const [tbs, algorithm] = readDer(readSingleDer(der, DER_TAG.sequence).content)
  if (tbs === undefined || algorithm === undefined)
    throw new MalformedError('ERR_CERTIFICATE', 'certificate is cut short')
  const extensions = readExtensions(tbs)
  const content = (oid: string): Uint8Array | undefined => extensions.find((extension) => extension.oid === oid)?.value
  return {
    x509,
    publicKey,
    der,
    signatureAlgorithm: readObjectId(first(readDer(algorithm.content))),
    basicConstraints: readBasicConstraints(content(OID.basicConstraints)),
    keyUsage: readKeyUsage(content(OID.keyUsage)),
    extendedKeyUsage: readExtendedKeyUsage(content(OID.extendedKeyUsage)),
    unknownCritical: extensions
      .filter(({ critical, oid }) => critical && !Object.values<string>(OID).includes(oid))
      .map(({ oid }) => oid),
  }
}

interface Extension {
  readonly oid: string
  readonly critical: boolean
  readonly value: Uint8Array
}

function readExtensions(tbs: DerValue): Extension[] {
  const field = readDer(tbs.content).find(({ tag }) => tag === EXTENSIONS_TAG)
  if (field === undefined) return []
  const extensions = readDer(readSingleDer(field.content, DER_TAG.sequence).content).map((extension) => {
    const parts = readDer(extension.content)
    const value = parts.at(-1)
    if (value?.tag !== DER_TAG.octetString || parts.length > 3) {
      throw new MalformedError('ERR_CERTIFICATE', 'extension without a value')
    }
    const flag = parts.length === 3 ? parts[1] : undefined
    return {
      oid: readObjectId(first(parts)),
      critical: flag === undefined ? false : readBoolean(flag),
      value: value.content,
    }
  })
  // RFC 5280 4.2: no extension twice. Two readers could each see another one.
  if (new Set(extensions.map(({ oid }) => oid)).size !== extensions.length) {
    throw new MalformedError('ERR_CERTIFICATE', 'an extension occurs twice')
  }
  return extensions
}

function readBasicConstraints(value: Uint8Array | undefined): ParsedCertificate['basicConstraints'] {
  if (value === undefined) return undefined
  const parts = readDer(readSingleDer(value, DER_TAG.sequence).content)
  const flag = parts.find(({ tag }) => tag === DER_TAG.boolean)
  const length = parts.find(({ tag }) => tag === DER_TAG.integer)
  return {
    ca: flag === undefined ? false : readBoolean(flag),
    // A path length of more than one byte does not limit any chain that is accepted here.
    pathLength: length === undefined ? undefined : length.content.length === 1 ? length.content[0] : 255,
  }
}

function readKeyUsage(value: Uint8Array | undefined): ReadonlySet<KeyUsage> | undefined {
  if (value === undefined) return undefined
  const [, ...bits] = readSingleDer(value, DER_TAG.bitString).content
  const usages = new Set<KeyUsage>()
  for (let bit = 0; bit < 8 * bits.length; bit++) {
    if ((((bits[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1) === 1) usages.add(KEY_USAGES[bit] ?? 'other')
  }
  return usages
}

function readExtendedKeyUsage(value: Uint8Array | undefined): readonly string[] | undefined {
  return value === undefined ? undefined : readDer(readSingleDer(value, DER_TAG.sequence).content).map(readObjectId)
}

function first(values: readonly DerValue[]): DerValue {
  const [value] = values
  if (value === undefined) throw new MalformedError('ERR_CERTIFICATE', 'empty sequence')
  return value
}
