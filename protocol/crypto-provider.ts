/**
 * The cryptography that guest-side code asks of its surroundings, so that the code itself names no engine.
 * `protocol/node/crypto.ts` is the implementation on Node (OpenSSL).
 */
export interface StreamingHash {
  update(bytes: Uint8Array): void
  digest(): Uint8Array
}

export type HashAlgorithm = 'sha1' | 'sha256' | 'sha384' | 'sha512'

/** `ecdsa`: DER-encoded signature; `ecdsa-p1363`: R ‖ S; RSA-PSS uses MGF1 with the same hash and salt = hash length. */
export type SignatureScheme = 'ecdsa' | 'ecdsa-p1363' | 'rsa-pkcs1' | 'rsa-pss' | 'ed25519'

export interface CryptoProvider {
  createHash(algorithm: HashAlgorithm): StreamingHash
  /** Of bytes that are all there: without the cost of a hash object, which is more than that of hashing a few of them. */
  digest(algorithm: HashAlgorithm, bytes: Uint8Array): Uint8Array
  /** @param publicKey PEM or DER SPKI. False on any mismatch; throws only on an unreadable key. */
  verify(input: {
    scheme: SignatureScheme
    hash: HashAlgorithm
    publicKey: string | Uint8Array
    data: Uint8Array
    signature: Uint8Array
  }): boolean
  randomBytes(length: number): Uint8Array
  /** Constant time for equal lengths; false at once for different lengths. */
  timingSafeEqual(a: Uint8Array, b: Uint8Array): boolean
}
