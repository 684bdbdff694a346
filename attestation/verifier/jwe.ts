/**
 * Encrypts a released resource to the key that a guest had attested: JWE, flattened JSON serialisation (RFC 7516).
 *
 * Written here rather than with `jose` because receivers in other languages re-serialise the protected header before
 * they use it as additional data: its members must stand in exactly this order (alg, enc, epk{crv,kty,x,y}), compact,
 * and `jose` orders the members of `epk` differently.
 */
import {
  createCipheriv,
  createPublicKey,
  createSecretKey,
  diffieHellman,
  generateKeyPairSync,
  hash,
  type KeyObject,
  constants as openssl,
  publicEncrypt,
  randomBytes,
} from 'node:crypto'
import { fromBase64Url, toBase64Url } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import type { TeePublicKey } from '#protocol/kbs-messages'

export interface FlattenedJwe {
  readonly protected: string
  readonly encrypted_key: string
  readonly iv: string
  readonly ciphertext: string
  readonly tag: string
}

/** The length of a coordinate: that of the field (RFC 7518 section 6.2.1.2). */
const COORDINATE_BYTES = { 'P-256': 32, 'P-521': 66 } as const

/** @throws MalformedError ERR_TEE_KEY when the key is not a point of its curve or not an RSA key of 2048 to 8192 bits */
export function encryptToGuest(key: TeePublicKey, plaintext: Uint8Array): FlattenedJwe {
  const cek = randomBytes(32)
  const { header, encryptedKey } = key.kty === 'EC' ? wrapForEc(key, cek) : wrapForRsa(key, cek)
  const protectedHeader = toBase64Url(Buffer.from(JSON.stringify(header)))
  const iv = randomBytes(12)
  const cipher = createCipheriv('aes-256-gcm', createSecretKey(cek), iv) // as bytes it costs five times as much
  cipher.setAAD(Buffer.from(protectedHeader, 'ascii'))
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()])
  return {
    protected: protectedHeader,
    encrypted_key: toBase64Url(encryptedKey),
    iv: toBase64Url(iv),
    ciphertext: toBase64Url(ciphertext),
    tag: toBase64Url(cipher.getAuthTag()),
  }
}

interface WrappedKey {
  readonly header: object
  readonly encryptedKey: Uint8Array
}

function wrapForEc(key: Extract<TeePublicKey, { kty: 'EC' }>, cek: Uint8Array): WrappedKey {
  // Key objects agree on a secret in two thirds of the time that `ECDH` takes.
  const ephemeral = generateKeyPairSync('ec', { namedCurve: key.crv })
  const z = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: pointOf(key) })
  const algorithm = 'ECDH-ES+A256KW'
  const kek = concatKdf(z, { algorithm, keyBits: 256 })
  const { x = '', y = '' } = ephemeral.publicKey.export({ format: 'jwk' })
  const epk = { crv: key.crv, kty: 'EC', x, y }
  return { header: { alg: algorithm, enc: 'A256GCM', epk }, encryptedKey: aesKeyWrap(kek, cek) }
}

function pointOf(key: Extract<TeePublicKey, { kty: 'EC' }>): KeyObject {
  const { kty, crv, x, y } = key
  for (const name of ['x', 'y'] as const) checkCoordinate(key, name)
  try {
    return createPublicKey({ key: { kty, crv, x, y }, format: 'jwk' }) // refuses points that are not on the curve
  } catch (cause) {
    throw new MalformedError('ERR_TEE_KEY', `tee-pubkey is not a point of ${crv}`, { cause })
  }
}

function wrapForRsa(key: Extract<TeePublicKey, { kty: 'RSA' }>, cek: Uint8Array): WrappedKey {
  try {
    const publicKey = createPublicKey({ key: { kty: 'RSA', n: key.n, e: key.e }, format: 'jwk' })
    const bits = publicKey.asymmetricKeyDetails?.modulusLength ?? 0
    if (bits < 2048 || bits > 8192) throw new RangeError(`${bits} bits`)
    const encryptedKey = publicEncrypt(
      { key: publicKey, padding: openssl.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' },
      cek,
    )
    return { header: { alg: 'RSA-OAEP-256', enc: 'A256GCM' }, encryptedKey }
  } catch (cause) {
    throw new MalformedError('ERR_TEE_KEY', 'tee-pubkey is not an RSA key of 2048 to 8192 bits', { cause })
  }
}

/** NIST SP 800-56A Concat KDF with SHA-256 as RFC 7518 section 4.6.2 uses it; party infos default to empty. */
export function concatKdf(
  z: Uint8Array,
  options: { algorithm: string; keyBits: number; partyU?: Uint8Array; partyV?: Uint8Array },
): Uint8Array {
  const info = Buffer.concat([
    lengthPrefixed(Buffer.from(options.algorithm, 'ascii')),
    lengthPrefixed(options.partyU ?? new Uint8Array()),
    lengthPrefixed(options.partyV ?? new Uint8Array()),
    u32(options.keyBits),
  ])
  const rounds = Math.ceil(options.keyBits / 256)
  const parts = Array.from({ length: rounds }, (_, index) =>
    hash('sha256', Buffer.concat([u32(index + 1), z, info]), 'buffer'),
  )
  return Buffer.concat(parts).subarray(0, options.keyBits / 8)
}

/** RFC 3394 with its default initial value. */
export function aesKeyWrap(kek: Uint8Array, key: Uint8Array): Uint8Array {
  const cipher = createCipheriv(`id-aes${kek.byteLength * 8}-wrap`, createSecretKey(kek), Buffer.alloc(8, 0xa6))
  return Buffer.concat([cipher.update(key), cipher.final()])
}

/** Text that Node would read otherwise than it is meant, or fill up with zeros, is none. */
function checkCoordinate(key: Extract<TeePublicKey, { kty: 'EC' }>, name: 'x' | 'y'): void {
  const { byteLength } = fromBase64Url(key[name], `tee-pubkey ${name}`)
  const length = COORDINATE_BYTES[key.crv]
  if (byteLength === length) return
  throw new MalformedError('ERR_TEE_KEY', `tee-pubkey ${name} has ${byteLength} bytes, ${key.crv} needs ${length}`)
}

function lengthPrefixed(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([u32(bytes.byteLength), bytes])
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
