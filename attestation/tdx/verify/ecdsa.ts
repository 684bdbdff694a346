/** ECDSA P-256 with SHA-256 over signatures of two big-endian numbers, as quotes and Intel's documents have them. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { concatBytes, equalBytes } from '#protocol/encoding'
import type { ParsedCertificate } from '../../x509/certificate.ts'
import { derSignature } from '../../x509/ecdsa-value.ts'

/** SubjectPublicKeyInfo of a P-256 key up to its coordinates: id-ecPublicKey, prime256v1, an uncompressed point. */
const P256_PREFIX: Uint8Array = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex')

/** @param point X ‖ Y. Undefined when it is not on the curve. */
export function p256Key(point: Uint8Array): KeyObject | undefined {
  try {
    return createPublicKey({ key: Buffer.from(concatBytes(P256_PREFIX, point)), format: 'der', type: 'spki' })
  } catch {
    return undefined
  }
}

/** @param signature R ‖ S. False as well for certificates of other keys. */
export function verifyByCertificate(
  { publicKey, publicKeyInfo }: ParsedCertificate,
  signed: Uint8Array | string,
  signature: Uint8Array,
): boolean {
  const isP256 = equalBytes(publicKeyInfo.subarray(0, P256_PREFIX.length), P256_PREFIX)
  return isP256 && verifyP256(publicKey, signed, signature)
}

/** @param key of the curve P-256, as `p256Key` makes them. @param signature R ‖ S */
export function verifyP256(key: KeyObject, signed: Uint8Array | string, signature: Uint8Array): boolean {
  const data = typeof signed === 'string' ? Buffer.from(signed, 'utf8') : signed
  return verify('sha256', data, key, derSignature(signature))
}
