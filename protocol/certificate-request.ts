/** A request for a certificate (PKCS #10, RFC 2986): a P-256 key, and the DNS names that it asks for. */
import {
  derBitString,
  derEcdsaSignature,
  derInteger,
  derObjectId,
  derOctetString,
  derPrimitive,
  derSequence,
  derSet,
  derTagged,
} from './der-writer.ts'

export interface RequestKey {
  /** DER of SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
  /** ECDSA with SHA-256: R ‖ S. */
  readonly sign: (bytes: Uint8Array) => Promise<Uint8Array>
}

const ECDSA_WITH_SHA256 = '1.2.840.10045.4.3.2'
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14'
const SUBJECT_ALT_NAME = '2.5.29.17'
const DNS_NAME = 2

/** DER of the request; its subject is empty, since who asks is not what the certificate is about. */
export async function encodeCertificateRequest(key: RequestKey, names: readonly string[]): Promise<Uint8Array> {
  const generalNames = derSequence(...names.map((name) => derPrimitive(DNS_NAME, new TextEncoder().encode(name))))
  const extensions = derSequence(derSequence(derObjectId(SUBJECT_ALT_NAME), derOctetString(generalNames)))
  const info = derSequence(
    derInteger(Uint8Array.of(0)),
    derSequence(),
    key.publicKey,
    derTagged(0, derSequence(derObjectId(EXTENSION_REQUEST), derSet(extensions))),
  )
  const signature = derEcdsaSignature(await key.sign(info))
  return derSequence(info, derSequence(derObjectId(ECDSA_WITH_SHA256)), derBitString(signature))
}
