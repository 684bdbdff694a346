/** Public keys that may verify image signatures: ECDSA on NIST curves, RSA, Ed25519. The key decides the algorithm. */
import type { CryptoProvider, SignatureScheme } from '#protocol/crypto-provider'
import { toHex } from '#protocol/encoding'
import { MalformedError, UnavailableError } from '#protocol/errors'
import { DER_TAG, expectTag, readBitBytes, readDer, readObjectId, readSingle } from './x509/der.ts'
import { parsePem } from './x509/pem.ts'

export interface SigningKey {
  /** DER of SubjectPublicKeyInfo. */
  readonly spki: Uint8Array
  readonly scheme: Extract<SignatureScheme, 'ecdsa' | 'rsa-pkcs1' | 'ed25519'>
}

const EC = '1.2.840.10045.2.1'
const CURVES: ReadonlyMap<string, string> = new Map([
  ['1.2.840.10045.3.1.7', 'P-256'],
  ['1.3.132.0.34', 'P-384'],
  ['1.3.132.0.35', 'P-521'],
])
const RSA = '1.2.840.113549.1.1.1'
const ED25519 = '1.3.101.112'
/** Bits of the modulus; its DER is never shorter than its bytes. */
const MIN_RSA_BITS = 2048

/** Throws `MalformedError` ERR_PUBLIC_KEY, or `UnavailableError` ERR_IMAGE_KEY_UNSUPPORTED. */
export function parseSigningKey(pem: string | Uint8Array, place: string): SigningKey {
  let block: { readonly label: string; readonly der: Uint8Array } | undefined
  try {
    const blocks = parsePem(pem, place)
    block = blocks.length === 1 ? blocks[0] : undefined
  } catch (cause) {
    throw notAKey(place, cause)
  }
  if (block?.label !== 'PUBLIC KEY') throw notAKey(place)
  return signingKeyOf(block.der, place)
}

/** From DER of SubjectPublicKeyInfo. Errors as of `parseSigningKey`. */
export function signingKeyOf(spki: Uint8Array, place: string): SigningKey {
  try {
    const [algorithm, bits, ...more] = readDer(readSingle(spki, DER_TAG.sequence).content)
    const [id, parameters] = readDer(expectTag(algorithm, DER_TAG.sequence).content)
    const key = readBitBytes(bits)
    if (more.length > 0) throw new MalformedError('ERR_PUBLIC_KEY', `${place}: more than a key`)
    const oid = readObjectId(id)
    if (oid === EC && CURVES.has(readObjectId(parameters))) return { spki, scheme: 'ecdsa' }
    if (oid === RSA && modulusBits(key) >= MIN_RSA_BITS) return { spki, scheme: 'rsa-pkcs1' }
    if (oid === ED25519) return { spki, scheme: 'ed25519' }
  } catch (cause) {
    throw notAKey(place, cause)
  }
  throw new UnavailableError('ERR_IMAGE_KEY_UNSUPPORTED', `${place}: a key of a kind that is not accepted`, {
    hint: 'Keys are ECDSA on P-256, P-384 or P-521, RSA of 2048 bits or more, or Ed25519.',
  })
}

/** Whether `signature` over `data` was made with `key`; hash and padding are those cosign uses. */
export function verifyWithKey(
  crypto: CryptoProvider,
  key: SigningKey,
  { data, signature }: { data: Uint8Array; signature: Uint8Array },
): boolean {
  return crypto.verify({ scheme: key.scheme, hash: 'sha256', publicKey: key.spki, data, signature })
}

/** How messages name a key: the hash of its SubjectPublicKeyInfo, as cosign and sigstore's hints do. */
export function keyName(crypto: CryptoProvider, { spki }: Pick<SigningKey, 'spki'>): string {
  const hash = crypto.createHash('sha256')
  hash.update(spki)
  return `key sha256:${toHex(hash.digest())}`
}

function modulusBits(key: Uint8Array): number {
  const [modulus] = readDer(readSingle(key, DER_TAG.sequence).content)
  const { content } = expectTag(modulus, DER_TAG.integer)
  const bytes = content[0] === 0 ? content.subarray(1) : content
  return bytes.length * 8 - Math.clz32(bytes[0] ?? 0) + 24
}

function notAKey(place: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_PUBLIC_KEY', `${place}: not one PEM "PUBLIC KEY"`, {
    hint: 'Give the public half of the signing key: openssl pkey -pubout.',
    ...(cause === undefined ? {} : { cause }),
  })
}
