/**
 * Content digests (OCI image-spec 1.1, descriptor.md "Digests"): `sha256:<64 lower-case hex>` and
 * `sha512:<128 lower-case hex>`. Other registered algorithms are refused.
 */
import type { CryptoProvider, HashAlgorithm } from '../crypto-provider.ts'
import { toHex } from '../encoding.ts'
import { MalformedError, UnverifiedError } from '../errors.ts'

export type DigestAlgorithm = Extract<HashAlgorithm, 'sha256' | 'sha512'>
export type Digest = `${DigestAlgorithm}:${string}`

const FORM = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/

export function isDigest(text: string): text is Digest {
  return FORM.test(text)
}

/** @param what for the message: "layer 2" */
export function parseDigest(text: unknown, what: string): Digest {
  if (typeof text !== 'string' || !isDigest(text)) {
    throw new MalformedError('ERR_DIGEST', `${what}: not a sha256 or sha512 digest: ${quote(text)}`)
  }
  return text
}

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512'
}

/** The hexadecimal part. */
export function digestHex(digest: Digest): string {
  return digest.slice(7)
}

export function computeDigest(
  crypto: CryptoProvider,
  bytes: Uint8Array,
  algorithm: DigestAlgorithm = 'sha256',
): Digest {
  const hash = crypto.createHash(algorithm)
  hash.update(bytes)
  return `${algorithm}:${toHex(hash.digest())}`
}

/** Throws `UnverifiedError` ERR_DIGEST_MISMATCH unless `bytes` are the content that `expected` names. */
export function verifyDigest(crypto: CryptoProvider, bytes: Uint8Array, expected: Digest, what: string): void {
  const actual = computeDigest(crypto, bytes, digestAlgorithm(expected))
  if (actual !== expected) {
    throw new UnverifiedError('ERR_DIGEST_MISMATCH', `${what}: content is ${actual}, expected ${expected}`, {
      hint: 'The bytes were changed in the registry or on the way. Push the image again from a trusted source.',
    })
  }
}

function quote(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 160)) : typeof value
}
