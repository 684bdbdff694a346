/**
 * A layer's bytes, from ciphertext to what was encrypted and back. Decrypting is encrypt-then-MAC the other way round in
 * one pass, so the plaintext runs ahead of its proof: whoever reads the stream must keep it to himself until it has
 * ended, which it does with an error unless HMAC and digests hold.
 */
import type { CryptoProvider, StreamingHash } from '#protocol/crypto-provider'
import { toHex } from '#protocol/encoding'
import { UnverifiedError } from '#protocol/errors'
import { type Digest, digestAlgorithm } from '#protocol/oci/digest'
import type { LayerCipher } from './cipher.ts'

export interface LayerSecret {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
  readonly hmac: Uint8Array
  /**
   * What the plaintext must hash to, or undefined where that is not known: skopeo, when it compresses and encrypts at
   * once, wraps the digest of what it compressed. HMAC and the image's diff id decide then.
   */
  readonly digest: Digest | undefined
}

export interface StreamEngines {
  readonly cipher: LayerCipher
  readonly crypto: CryptoProvider
}

/**
 * Throws `UnverifiedError` ERR_LAYER_HMAC or ERR_DIGEST_MISMATCH, at the end.
 *
 * @param digest of the ciphertext, from the manifest
 */
export async function* decryptLayer(
  source: AsyncIterable<Uint8Array>,
  { secret, digest, what }: { secret: LayerSecret; digest: Digest; what: string },
  { cipher, crypto }: StreamEngines,
): AsyncGenerator<Uint8Array> {
  const decrypt = cipher.counterMode(secret.key, secret.nonce)
  const hmac = cipher.hmacSha256(secret.key)
  const outer = crypto.createHash(digestAlgorithm(digest))
  const inner = secret.digest === undefined ? undefined : crypto.createHash(digestAlgorithm(secret.digest))
  for await (const chunk of source) {
    hmac.update(chunk)
    outer.update(chunk)
    const plain = decrypt(chunk)
    inner?.update(plain)
    yield plain
  }
  requireDigest(outer, digest, `${what}: its encrypted content`)
  if (!crypto.timingSafeEqual(hmac.digest(), secret.hmac)) {
    throw new UnverifiedError(
      'ERR_LAYER_HMAC',
      `${what}: its HMAC does not hold: it was changed after it was encrypted`,
      {
        hint: 'Encrypt and push the image again.',
      },
    )
  }
  if (inner !== undefined && secret.digest !== undefined) {
    requireDigest(inner, secret.digest, `${what}: its decrypted content`)
  }
}

export interface EncryptedStream {
  readonly body: AsyncIterable<Uint8Array>
  /** Once the body has been read to its end. */
  finish(): { readonly hmac: Uint8Array; readonly plainDigest: Digest; readonly digest: Digest; readonly size: number }
}

/** @param key 32 fresh random bytes @param nonce 16 of them */
export function encryptLayer(
  source: AsyncIterable<Uint8Array>,
  { key, nonce }: { key: Uint8Array; nonce: Uint8Array },
  { cipher, crypto }: StreamEngines,
): EncryptedStream {
  const encrypt = cipher.counterMode(key, nonce)
  const hmac = cipher.hmacSha256(key)
  const [outer, inner] = [crypto.createHash('sha256'), crypto.createHash('sha256')]
  let size = 0
  async function* body(): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      inner.update(chunk)
      const sealed = encrypt(chunk)
      hmac.update(sealed)
      outer.update(sealed)
      size += sealed.length
      yield sealed
    }
  }
  return {
    body: body(),
    finish: () => ({
      hmac: hmac.digest(),
      plainDigest: `sha256:${toHex(inner.digest())}`,
      digest: `sha256:${toHex(outer.digest())}`,
      size,
    }),
  }
}

function requireDigest(hash: StreamingHash, expected: Digest, what: string): void {
  const actual = `${digestAlgorithm(expected)}:${toHex(hash.digest())}`
  if (actual === expected) return
  throw new UnverifiedError('ERR_DIGEST_MISMATCH', `${what} is ${actual}, expected ${expected}`, {
    hint: 'The bytes were changed in the registry or on the way. Push the image again from a trusted source.',
  })
}
