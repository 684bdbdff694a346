/**
 * X.509 certificates (RFC 5280 section 4.1), read strictly: every field in its place, times that exist, signature
 * algorithms that are understood completely. Nothing is judged here: `path.ts` does.
 */
import { type KeyObject, X509Certificate } from 'node:crypto'
import { DER_TAG, type DerValue, readByteString, readDer, readInteger, readSingleDer, readTime } from '#protocol/der'
import { equalBytes, toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import {
  type BasicConstraints,
  type Extension,
  type KeyUsage,
  readBasicConstraints,
  readExtendedKeyUsage,
  readExtensions,
  readKeyUsage,
} from './extensions.ts'
import { checkName } from './name.ts'
import { readSignatureAlgorithm, type SignatureAlgorithm } from './signature.ts'

export interface ParsedCertificate {
  readonly x509: X509Certificate
  readonly publicKey: KeyObject
  readonly der: Uint8Array
  /** What is signed: the encoded TBSCertificate. */
  readonly signed: Uint8Array
  readonly signature: Uint8Array
  readonly algorithm: SignatureAlgorithm
  /** Object identifier of `algorithm`. */
  readonly signatureAlgorithm: string
  /** DER of its parameters, undefined when absent. */
  readonly signatureParameters: Uint8Array | undefined
  /** Hex, lower case, at least two digits, without leading zero bytes. AMD's VCEKs all have 00. */
  readonly serial: string
  /** DER of the Name. */
  readonly issuer: Uint8Array
  /** DER of the Name; empty sequence in certificates of Google's virtual TPMs. */
  readonly subject: Uint8Array
  readonly notBefore: Date
  readonly notAfter: Date
  /** DER of the SubjectPublicKeyInfo. */
  readonly publicKeyInfo: Uint8Array
  readonly extensions: readonly Extension[]
  /** Content of an extension, undefined when it is absent. */
  extension(oid: string): Uint8Array | undefined
  readonly basicConstraints: BasicConstraints
  readonly keyUsage: ReadonlySet<KeyUsage> | undefined
  readonly extendedKeyUsage: readonly string[] | undefined
  /** Critical extensions that are not interpreted here. */
  readonly unknownCritical: readonly string[]
}

const OID = {
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  extendedKeyUsage: '2.5.29.37',
} as const
const KNOWN: ReadonlySet<string> = new Set(Object.values(OID))

const VERSION_TAG = 0xa0
const UNIQUE_ID_TAGS: readonly number[] = [0x81, 0x82]
const EXTENSIONS_TAG = 0xa3
const MAX_CERTIFICATE_BYTES = 64 * 1024
/** RFC 5280 4.1.2.2: 20 octets, and a sign. */
const MAX_SERIAL_BYTES = 21

/**
 * What was read last, by its bytes: the same authorities come with every piece of evidence. Reading is all that is
 * remembered; signatures, times and revocation are judged anew each time.
 */
const recent = new Map<string, ParsedCertificate>()
const MAX_RECENT = 64

/** DER or PEM. Throws `MalformedError` ERR_CERTIFICATE, ERR_SIGNATURE_ALGORITHM or ERR_DER. */
export function parseCertificate(certificate: Uint8Array | string): ParsedCertificate {
  if (certificate.length > 2 * MAX_CERTIFICATE_BYTES) throw malformed(`certificate of ${certificate.length} bytes`)
  if (typeof certificate === 'string') return readCertificate(certificate)
  const { buffer, byteOffset, byteLength } = certificate
  const key = Buffer.from(buffer, byteOffset, byteLength).toString('latin1')
  const known = recent.get(key)
  const parsed = known ?? readCertificate(certificate)
  if (known !== undefined) recent.delete(key)
  recent.set(key, parsed)
  const [oldest] = recent.size > MAX_RECENT ? recent.keys() : []
  if (oldest !== undefined) recent.delete(oldest)
  return parsed
}

function readCertificate(certificate: Uint8Array | string): ParsedCertificate {
  let x509: X509Certificate
  let publicKey: KeyObject
  try {
    x509 = new X509Certificate(certificate)
    publicKey = x509.publicKey // decoded when asked for, so this throws for a broken key
  } catch (cause) {
    throw malformed('not an X.509 certificate', cause)
  }
  const der = new Uint8Array(x509.raw)
  if (typeof certificate !== 'string' && !equalBytes(der, certificate)) {
    throw malformed(`certificate of ${der.length} bytes, followed by others`)
  }
  const [tbs, outer, bits, ...more] = readDer(readSingleDer(der, DER_TAG.sequence).content)
  if (tbs?.tag !== DER_TAG.sequence || outer === undefined || bits === undefined || more.length > 0) {
    throw malformed('a certificate has three parts')
  }
  const fields = readFields(tbs)
  const { extensions } = fields
  // RFC 5280 4.1.1.2: the algorithm outside is not signed, so it must repeat the one inside.
  if (!equalBytes(fields.innerAlgorithm, outer.encoded)) throw malformed('two different signature algorithms')
  const algorithm = readSignatureAlgorithm(outer)
  const extension = (oid: string): Uint8Array | undefined => extensions.find((item) => item.oid === oid)?.value
  return {
    x509,
    publicKey,
    der,
    signed: tbs.encoded,
    signature: readByteString(bits),
    algorithm,
    signatureAlgorithm: algorithm.oid,
    signatureParameters: algorithm.parameters,
    serial: fields.serial,
    issuer: fields.issuer,
    subject: fields.subject,
    notBefore: fields.notBefore,
    notAfter: fields.notAfter,
    publicKeyInfo: fields.publicKeyInfo,
    extensions,
    extension,
    basicConstraints: readBasicConstraints(extension(OID.basicConstraints)),
    keyUsage: readKeyUsage(extension(OID.keyUsage)),
    extendedKeyUsage: readExtendedKeyUsage(extension(OID.extendedKeyUsage)),
    unknownCritical: extensions.filter(({ critical, oid }) => critical && !KNOWN.has(oid)).map(({ oid }) => oid),
  }
}

/** Hex of a serial number as `ParsedCertificate` and revocation lists have it. Throws `MalformedError`. */
export function readSerial(value: DerValue): string {
  if (value.content.length > MAX_SERIAL_BYTES) throw malformed(`serial number of ${value.content.length} bytes`)
  if (readInteger(value) < 0n) throw malformed('negative serial number')
  const [first, ...rest] = value.content
  return toHex(first === 0 && rest.length > 0 ? value.content.subarray(1) : value.content)
}

type Fields = Pick<
  ParsedCertificate,
  'serial' | 'issuer' | 'subject' | 'notBefore' | 'notAfter' | 'publicKeyInfo' | 'extensions'
> & { readonly innerAlgorithm: Uint8Array }

function readFields(tbs: DerValue): Fields {
  const parts = readDer(tbs.content)
  const version = parts[0]?.tag === VERSION_TAG ? parts.shift() : undefined
  const number = version === undefined ? 0n : readInteger(readSingleDer(version.content, DER_TAG.integer))
  const [serial, algorithm, issuer, validity, subject, key, ...optional] = parts
  if (
    serial === undefined ||
    algorithm === undefined ||
    issuer === undefined ||
    validity?.tag !== DER_TAG.sequence ||
    subject === undefined ||
    key?.tag !== DER_TAG.sequence
  ) {
    throw malformed('a field is missing')
  }
  while (UNIQUE_ID_TAGS.includes(optional[0]?.tag ?? 0)) optional.shift()
  const [extensions, ...more] = optional
  if (more.length > 0 || (extensions !== undefined && (extensions.tag !== EXTENSIONS_TAG || number !== 2n))) {
    throw malformed('an unknown field, or extensions in a certificate that is not of version 3')
  }
  if (number !== 2n && number !== 0n) throw malformed(`version number ${number}`)
  const [notBefore, notAfter, ...times] = readDer(validity.content)
  if (notBefore === undefined || notAfter === undefined || times.length > 0) throw malformed('validity has two times')
  checkName(issuer)
  checkName(subject)
  return {
    serial: readSerial(serial),
    innerAlgorithm: algorithm.encoded,
    issuer: issuer.encoded,
    subject: subject.encoded,
    notBefore: readTime(notBefore),
    notAfter: readTime(notAfter),
    publicKeyInfo: key.encoded,
    extensions: extensions === undefined ? [] : readExtensions(readSingleDer(extensions.content, DER_TAG.sequence)),
  }
}

function malformed(why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_CERTIFICATE', why, cause === undefined ? {} : { cause })
}
