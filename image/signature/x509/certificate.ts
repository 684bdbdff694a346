/** X.509 certificates (RFC 5280 section 4.1), as much as signing of images uses. Nothing is judged here. */
import { MalformedError } from '#protocol/errors'
import {
  ascii,
  DER_TAG,
  type DerValue,
  expectTag,
  readBitBytes,
  readBoolean,
  readDer,
  readObjectId,
  readSingle,
  readSmallInteger,
  readTime,
} from './der.ts'

export interface Certificate {
  readonly der: Uint8Array
  /** What the issuer signed. */
  readonly tbs: Uint8Array
  readonly signatureAlgorithm: string
  readonly signature: Uint8Array
  /** DER of the distinguished names, to be compared byte by byte. */
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  readonly notBefore: Date
  readonly notAfter: Date
  /** DER of SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
  /** Undefined when the extension is absent. */
  readonly basicConstraints: { readonly ca: boolean; readonly pathLength: number | undefined } | undefined
  readonly keyCertSign: boolean | undefined
  readonly extendedKeyUsage: readonly string[] | undefined
  readonly emails: readonly string[]
  readonly dnsNames: readonly string[]
  readonly uris: readonly string[]
  readonly extensions: ReadonlyMap<string, Extension>
}

export interface Extension {
  readonly critical: boolean
  readonly value: Uint8Array
}

export const EXTENSION = {
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  extendedKeyUsage: '2.5.29.37',
} as const

const VERSION_TAG = 0xa0
const EXTENSIONS_TAG = 0xa3
const V3 = 2

/** Throws `MalformedError` ERR_CERTIFICATE. @param what for messages */
export function parseCertificate(der: Uint8Array, what: string): Certificate {
  try {
    return parse(der)
  } catch (cause) {
    if (!(cause instanceof MalformedError)) throw cause
    throw new MalformedError('ERR_CERTIFICATE', `${what}: not an X.509 certificate: ${cause.message}`, { cause })
  }
}

function parse(der: Uint8Array): Certificate {
  const [tbs, algorithm, signature, ...more] = readDer(readSingle(der, DER_TAG.sequence).content)
  if (tbs === undefined || algorithm === undefined || more.length > 0) throw malformed('has not three parts')
  const fields = [...readDer(expectTag(tbs, DER_TAG.sequence).content)]
  const version = fields[0]?.tag === VERSION_TAG ? fields.shift() : undefined
  if (version === undefined || readSmallInteger(first(version.content)) !== V3) throw malformed('is not of version 3')
  const [, inner, issuer, validity, subject, publicKey, ...rest] = fields
  const [notBefore, notAfter] = readDer(expectTag(validity, DER_TAG.sequence).content)
  // RFC 5280 4.1.1.2: inside and outside the signature the algorithm is the same.
  const signatureAlgorithm = readObjectId(readDer(expectTag(algorithm, DER_TAG.sequence).content)[0])
  if (readObjectId(readDer(expectTag(inner, DER_TAG.sequence).content)[0]) !== signatureAlgorithm) {
    throw malformed('names two signature algorithms')
  }
  const extensions = readExtensions(rest.find(({ tag }) => tag === EXTENSIONS_TAG))
  const value = (oid: string): Uint8Array | undefined => extensions.get(oid)?.value
  const names = readAltNames(value(EXTENSION.subjectAltName))
  return {
    der,
    tbs: tbs.encoded,
    signatureAlgorithm,
    signature: readBitBytes(signature),
    issuer: expectTag(issuer, DER_TAG.sequence).encoded,
    subject: expectTag(subject, DER_TAG.sequence).encoded,
    notBefore: readTime(notBefore),
    notAfter: readTime(notAfter),
    publicKey: expectTag(publicKey, DER_TAG.sequence).encoded,
    basicConstraints: readBasicConstraints(value(EXTENSION.basicConstraints)),
    keyCertSign: readKeyCertSign(value(EXTENSION.keyUsage)),
    extendedKeyUsage: readUsages(value(EXTENSION.extendedKeyUsage)),
    emails: names.filter(({ tag }) => tag === 0x81).map(({ content }) => ascii(content)),
    dnsNames: names.filter(({ tag }) => tag === 0x82).map(({ content }) => ascii(content)),
    uris: names.filter(({ tag }) => tag === 0x86).map(({ content }) => ascii(content)),
    extensions,
  }
}

function readExtensions(field: DerValue | undefined): ReadonlyMap<string, Extension> {
  const extensions = new Map<string, Extension>()
  if (field === undefined) return extensions
  for (const item of readDer(readSingle(field.content, DER_TAG.sequence).content)) {
    const parts = readDer(expectTag(item, DER_TAG.sequence).content)
    const [id, middle] = parts
    const oid = readObjectId(id)
    // RFC 5280 4.2: no extension twice. Two readers could each see another one.
    if (extensions.has(oid)) throw malformed(`has the extension ${oid} twice`)
    if (parts.length > 3) throw malformed('has an extension of four parts')
    const critical = parts.length === 3 && middle !== undefined && readBoolean(middle)
    extensions.set(oid, { critical, value: expectTag(parts.at(-1), DER_TAG.octetString).content })
  }
  return extensions
}

function readBasicConstraints(value: Uint8Array | undefined): Certificate['basicConstraints'] {
  if (value === undefined) return undefined
  const parts = readDer(readSingle(value, DER_TAG.sequence).content)
  const flag = parts.find(({ tag }) => tag === DER_TAG.boolean)
  const length = parts.find(({ tag }) => tag === DER_TAG.integer)
  return {
    ca: flag !== undefined && readBoolean(flag),
    pathLength: length === undefined ? undefined : readSmallInteger(length),
  }
}

/** RFC 5280 4.2.1.3: keyCertSign is bit 5. */
function readKeyCertSign(value: Uint8Array | undefined): boolean | undefined {
  if (value === undefined) return undefined
  const { content } = readSingle(value, DER_TAG.bitString)
  return ((content[1] ?? 0) & 0x04) !== 0
}

function readUsages(value: Uint8Array | undefined): readonly string[] | undefined {
  return value === undefined ? undefined : readDer(readSingle(value, DER_TAG.sequence).content).map(readObjectId)
}

function readAltNames(value: Uint8Array | undefined): readonly DerValue[] {
  return value === undefined ? [] : readDer(readSingle(value, DER_TAG.sequence).content)
}

function first(bytes: Uint8Array): DerValue {
  const [value] = readDer(bytes)
  if (value === undefined) throw malformed('lacks a value')
  return value
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_CERTIFICATE', why)
}
