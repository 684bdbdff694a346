/** `CryptoProvider` on Node's OpenSSL. */
import {
  createHash,
  createPublicKey,
  hash,
  type KeyObject,
  constants as openssl,
  randomBytes,
  timingSafeEqual,
  verify,
} from 'node:crypto'
import type { CryptoProvider, SignatureScheme } from '../crypto-provider.ts'
import { MalformedError } from '../errors.ts'

/** Key type, as Node names it, that each scheme is for: `crypto.verify` would follow the key instead of the scheme. */
const KEY_TYPE: Readonly<Record<SignatureScheme, string>> = {
  ecdsa: 'ec',
  'ecdsa-p1363': 'ec',
  'rsa-pkcs1': 'rsa',
  'rsa-pss': 'rsa',
  ed25519: 'ed25519',
}

export const nodeCrypto: CryptoProvider = {
  createHash(algorithm) {
    const streaming = createHash(algorithm)
    return {
      update: (bytes) => void streaming.update(bytes),
      digest: () => new Uint8Array(streaming.digest()),
    }
  },

  digest: (algorithm, bytes) => new Uint8Array(hash(algorithm, bytes, 'buffer')),

  verify({ scheme, hash: digest, publicKey, data, signature }) {
    const key = readPublicKey(publicKey)
    if (key.asymmetricKeyType !== KEY_TYPE[scheme]) return false
    switch (scheme) {
      case 'ecdsa':
        return verify(digest, data, { key, dsaEncoding: 'der' }, signature)
      case 'ecdsa-p1363':
        return verify(digest, data, { key, dsaEncoding: 'ieee-p1363' }, signature)
      case 'rsa-pkcs1':
        return verify(digest, data, { key, padding: openssl.RSA_PKCS1_PADDING }, signature)
      case 'rsa-pss':
        return verify(
          digest,
          data,
          { key, padding: openssl.RSA_PKCS1_PSS_PADDING, saltLength: openssl.RSA_PSS_SALTLEN_DIGEST },
          signature,
        )
      case 'ed25519':
        return verify(null, data, key, signature)
      default:
        return scheme satisfies never
    }
  },

  randomBytes: (length) => new Uint8Array(randomBytes(length)),

  timingSafeEqual: (a, b) => a.byteLength === b.byteLength && timingSafeEqual(a, b),
}

function readPublicKey(spki: string | Uint8Array): KeyObject {
  try {
    return typeof spki === 'string'
      ? createPublicKey({ key: spki, format: 'pem' })
      : createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' })
  } catch (cause) {
    throw new MalformedError('ERR_PUBLIC_KEY', 'not a public key in PEM or DER SubjectPublicKeyInfo form', { cause })
  }
}
