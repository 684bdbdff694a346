/**
 * Requests for certificates (PKCS #10, RFC 2986), read strictly: a P-256 key and DNS names, nothing else. The subject is
 * not looked at; every attribute and extension that asks for more is refused rather than overlooked.
 */
import { createPublicKey } from 'node:crypto'
import {
  DER_TAG,
  type DerValue,
  readByteString,
  readDer,
  readObjectId,
  readSingleDer,
  readSmallInteger,
  readString,
} from '#protocol/der'
import { isDnsName } from '#protocol/dns-name'
import { CaissonError, MalformedError, UnverifiedError } from '#protocol/errors'
import { readExtensions } from './extensions.ts'
import { readSignatureAlgorithm, SIGNATURE_OID, type SignatureAlgorithm, verifySignature } from './signature.ts'

export interface ParsedCertificateRequest {
  /** DER of SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
  /** DNS names in the order of the request, each once. */
  readonly names: readonly string[]
  /** CertificationRequestInfo, the bytes that were signed. */
  readonly signed: Uint8Array
  readonly algorithm: SignatureAlgorithm
  readonly signature: Uint8Array
}

export const MAX_REQUEST_BYTES: number = 8 * 1024
export const MAX_REQUEST_NAMES = 16

const EC_PUBLIC_KEY = '1.2.840.10045.2.1'
const P256 = '1.2.840.10045.3.1.7'
const POINT_BYTES = 65
const UNCOMPRESSED = 4
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14'
const SUBJECT_ALT_NAME = '2.5.29.17'
const ATTRIBUTES_TAG = 0xa0
const DNS_NAME_TAG = 0x82

/** @param bytes DER. @throws MalformedError ERR_CERTIFICATE_REQUEST */
export function parseCertificateRequest(bytes: Uint8Array): ParsedCertificateRequest {
  if (bytes.byteLength > MAX_REQUEST_BYTES) throw malformed(`has ${bytes.byteLength} bytes`)
  try {
    return readRequest(bytes)
  } catch (cause) {
    if (!(cause instanceof CaissonError) || cause.code === 'ERR_CERTIFICATE_REQUEST') throw cause
    throw malformed(`cannot be read: ${cause.message}`, cause)
  }
}

/**
 * Whoever asks has the key.
 *
 * @throws UnverifiedError ERR_CERTIFICATE_REQUEST_SIGNATURE
 */
export function verifyCertificateRequest(request: ParsedCertificateRequest): void {
  const { signed, algorithm, signature } = request
  try {
    const key = createPublicKey({ key: Buffer.from(request.publicKey), format: 'der', type: 'spki' })
    if (verifySignature(signed, algorithm, signature, key)) return
  } catch {
    // Not a point of the curve: no key, so nobody has it.
  }
  throw new UnverifiedError('ERR_CERTIFICATE_REQUEST_SIGNATURE', 'the request is not signed with the key it names', {
    hint: 'Sign the request with the private key that the certificate is for.',
  })
}

function readRequest(bytes: Uint8Array): ParsedCertificateRequest {
  const [info, algorithm, signature] = membersOf(readSingleDer(bytes, DER_TAG.sequence), 3)
  const [version, subject, publicKey, attributes] = membersOf(info, 4)
  if (version === undefined || subject?.tag !== DER_TAG.sequence) throw malformed('lacks its version or subject')
  readSmallInteger(version, 0, 0)
  if (publicKey === undefined || attributes?.tag !== ATTRIBUTES_TAG) throw malformed('lacks its key or its names')
  checkPublicKey(publicKey)
  if (info === undefined || algorithm === undefined || signature === undefined) throw malformed('is not complete')
  const scheme = readSignatureAlgorithm(algorithm)
  if (scheme.oid !== SIGNATURE_OID.ecdsaSha256) throw malformed('is not signed by ECDSA with SHA-256')
  return {
    publicKey: publicKey.encoded,
    names: readNames(attributes),
    signed: info.encoded,
    algorithm: scheme,
    signature: readByteString(signature),
  }
}

/** RFC 5480 section 2: a named curve and an uncompressed point. */
function checkPublicKey(value: DerValue): void {
  const [algorithm, key] = membersOf(value, 2)
  const [id, curve] = membersOf(algorithm, 2)
  if (id === undefined || curve === undefined || readObjectId(id) !== EC_PUBLIC_KEY || readObjectId(curve) !== P256) {
    throw malformed('is for a key of another kind than P-256')
  }
  const point = key === undefined ? undefined : readByteString(key)
  if (point?.length !== POINT_BYTES || point[0] !== UNCOMPRESSED) throw malformed('has a key that is no point')
}

function readNames(attributes: DerValue): readonly string[] {
  const [attribute, ...others] = readDer(attributes.content)
  const [id, values] = membersOf(attribute, 2)
  if (others.length > 0 || id === undefined || readObjectId(id) !== EXTENSION_REQUEST) {
    throw malformed('has other attributes than one request for extensions')
  }
  const list = values?.tag === DER_TAG.set ? readSingleDer(values.content, DER_TAG.sequence) : undefined
  const [extension, ...more] = list === undefined ? [] : readExtensions(list)
  if (extension?.oid !== SUBJECT_ALT_NAME || more.length > 0) throw malformed('asks for other extensions than names')
  const names = readDer(readSingleDer(extension.value, DER_TAG.sequence).content).map(readDnsName)
  if (names.length === 0 || names.length > MAX_REQUEST_NAMES) {
    throw malformed(`asks for ${names.length} names, 1 to ${MAX_REQUEST_NAMES} are possible`)
  }
  if (new Set(names).size !== names.length) throw malformed('names a name twice')
  return names
}

/** The implicit tag stands in place of IA5String's. */
function readDnsName({ tag, content, encoded }: DerValue): string {
  const name = tag === DNS_NAME_TAG ? readString({ tag: DER_TAG.ia5String, content, encoded }) : ''
  if (isDnsName(name)) return name
  throw malformed('asks for a name that is no DNS name in lower case')
}

function membersOf(value: DerValue | undefined, count: number): readonly DerValue[] {
  const members = value?.tag === DER_TAG.sequence ? readDer(value.content) : []
  if (members.length !== count) throw malformed(`has a sequence of other than ${count} members`)
  return members
}

function malformed(problem: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_CERTIFICATE_REQUEST', `the certificate request ${problem}`, {
    hint: 'Send PKCS #10 in DER: a P-256 key, one extension request with DNS names, signed with that key.',
    ...(cause === undefined ? {} : { cause }),
  })
}
