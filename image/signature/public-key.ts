/** Public keys that may verify image signatures: ECDSA on P-256, the key that cosign generates. */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError, UnavailableError } from '#protocol/errors'

/** DER of SubjectPublicKeyInfo {id-ecPublicKey, prime256v1} up to the point, which follows uncompressed (RFC 5480). */
const P256_PREFIX = [
  0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
  0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
]
const P256_SPKI_LENGTH = 91
const PEM = /^\s*-----BEGIN PUBLIC KEY-----\s*([A-Za-z0-9+/=\s]+?)-----END PUBLIC KEY-----\s*$/

/** DER of the key. Throws `MalformedError` ERR_PUBLIC_KEY, or `UnavailableError` ERR_IMAGE_KEY_UNSUPPORTED. */
export function parseSigningKey(pem: string, place: string): Uint8Array {
  const body = PEM.exec(pem)?.[1]
  if (body === undefined) {
    throw new MalformedError('ERR_PUBLIC_KEY', `${place}: not one PEM "PUBLIC KEY"`, {
      hint: 'Give the public half of the signing key: openssl pkey -pubout.',
    })
  }
  const der = fromBase64(body.replaceAll(/\s/g, ''), place)
  if (der.length !== P256_SPKI_LENGTH || P256_PREFIX.some((byte, index) => der[index] !== byte)) {
    throw new UnavailableError('ERR_IMAGE_KEY_UNSUPPORTED', `${place}: not an ECDSA key on P-256`, {
      hint: 'Only ECDSA P-256 keys are supported yet. Sign with one: caisson image keygen.',
    })
  }
  return der
}
