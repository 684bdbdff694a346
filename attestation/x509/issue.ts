/** Writing certificates (RFC 5280 section 4.1) and signing them with a P-256 key. */
import { createHash, type KeyObject, sign } from 'node:crypto'
import {
  derBitString,
  derBoolean,
  derInteger,
  derObjectId,
  derOctetString,
  derPrimitive,
  derSequence,
  derSet,
  derTagged,
  derTime,
  derUtf8String,
} from '#protocol/der-writer'

export interface CertificateFields {
  /** Big-endian, positive, at most 20 bytes. */
  readonly serial: Uint8Array
  /** DER of a Name, byte for byte what the issuer's own certificate has as its subject. */
  readonly issuer: Uint8Array
  /** DER of a Name. */
  readonly subject: Uint8Array
  readonly notBefore: Date
  readonly notAfter: Date
  /** DER of SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
  readonly extensions: readonly Uint8Array[]
}

const OID = {
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const

/** The BIT STRING of a P-256 key: 04, x, y, at the end of its SubjectPublicKeyInfo. */
const P256_POINT_BYTES = 65
/** ub-common-name and ub-organization-name of RFC 5280 appendix A. */
const MAX_ATTRIBUTE = 64

/** DER of the certificate. @param key the issuer's, P-256 */
export function issueCertificate(fields: CertificateFields, key: KeyObject): Uint8Array {
  const algorithm = derSequence(derObjectId(OID.ecdsaWithSha256))
  const toBeSigned = derSequence(
    derTagged(0, derInteger(Uint8Array.of(2))),
    derInteger(fields.serial),
    algorithm,
    fields.issuer,
    derSequence(derTime(fields.notBefore), derTime(fields.notAfter)),
    fields.subject,
    fields.publicKey,
    derTagged(3, derSequence(...fields.extensions)),
  )
  return derSequence(toBeSigned, algorithm, derBitString(sign('sha256', toBeSigned, key)))
}

/** DER of a Name. An attribute longer than X.520 allows is left out. */
export function distinguishedName(attributes: { organization?: string; commonName: string }): Uint8Array {
  const { organization = '', commonName } = attributes
  const parts = [
    { id: OID.organization, text: organization },
    { id: OID.commonName, text: commonName },
  ].filter(({ text }) => text !== '' && text.length <= MAX_ATTRIBUTE)
  return derSequence(...parts.map(({ id, text }) => derSet(derSequence(derObjectId(id), derUtf8String(text)))))
}

/** Of a CA that issues end-entity certificates only. @param publicKey its own */
export function authorityExtensions(publicKey: Uint8Array): readonly Uint8Array[] {
  return [
    extension(OID.basicConstraints, true, derSequence(derBoolean(true), derInteger(Uint8Array.of(0)))),
    extension(OID.keyUsage, true, derBitString(Uint8Array.of(0x06), 1)), // keyCertSign, cRLSign
    extension(OID.subjectKeyIdentifier, false, derOctetString(keyIdentifier(publicKey))),
  ]
}

/** Of both ends of a TLS connection. @param names DNS names */
export function peerExtensions(
  publicKey: Uint8Array,
  issuerPublicKey: Uint8Array,
  names: readonly string[],
): readonly Uint8Array[] {
  const dnsNames = names.map((name) => derPrimitive(2, new TextEncoder().encode(name)))
  return [
    extension(OID.basicConstraints, true, derSequence()),
    extension(OID.keyUsage, true, derBitString(Uint8Array.of(0x80), 7)), // digitalSignature
    extension(OID.extendedKeyUsage, false, derSequence(derObjectId(OID.serverAuth), derObjectId(OID.clientAuth))),
    // Critical, since the subject may be empty (RFC 5280 section 4.2.1.6).
    extension(OID.subjectAltName, true, derSequence(...dnsNames)),
    extension(OID.subjectKeyIdentifier, false, derOctetString(keyIdentifier(publicKey))),
    extension(OID.authorityKeyIdentifier, false, derSequence(derPrimitive(0, keyIdentifier(issuerPublicKey)))),
  ]
}

function extension(id: string, critical: boolean, value: Uint8Array): Uint8Array {
  const wrapped = derOctetString(value)
  return critical ? derSequence(derObjectId(id), derBoolean(true), wrapped) : derSequence(derObjectId(id), wrapped)
}

/** RFC 5280 section 4.2.1.2, method 1: SHA-1 of the key bits as a name for the key, not as protection. */
function keyIdentifier(publicKey: Uint8Array): Uint8Array {
  return createHash('sha1').update(publicKey.subarray(-P256_POINT_BYTES)).digest()
}
