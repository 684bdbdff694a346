/** Private keys that sign images: PKCS#8, SEC 1 or PKCS#1 in PEM, and cosign's own encrypted form. */
import { createPrivateKey, type KeyObject, scryptSync } from 'node:crypto'
import { fromBase64 } from '#protocol/encoding'
import { errorText, MalformedError, UnverifiedError } from '#protocol/errors'
import { asObject, asString } from '../json/fields.ts'
import { type JsonValue, parseStrictJson } from '../json/strict-json.ts'
import { openSecretbox } from './secretbox.ts'

const COSIGN_PEM =
  /^\s*-----BEGIN ENCRYPTED (?:COSIGN|SIGSTORE) PRIVATE KEY-----\s*([A-Za-z0-9+/=\s]+?)-----END ENCRYPTED (?:COSIGN|SIGSTORE) PRIVATE KEY-----\s*$/
const KEY_BYTES = 32
/** Bounds of scrypt: 128·N·r bytes of memory. cosign uses 32768 (65536 in newer versions), 8, 1. */
const MAX_N = 1 << 20
const MAX_FACTOR = 16

export interface EncryptedKey {
  readonly N: number
  readonly r: number
  readonly p: number
  readonly salt: Uint8Array
  readonly nonce: Uint8Array
  readonly ciphertext: Uint8Array
}

/**
 * Throws `MalformedError` ERR_SIGNING_KEY for what is no such key, `UnverifiedError` ERR_SIGNING_KEY_PASSWORD when it is
 * encrypted and the password is missing or wrong.
 */
export function readSigningKey(pem: string, password: string | undefined): KeyObject {
  const key = COSIGN_PEM.test(pem) ? openCosignKey(pem, password) : openPem(pem, password)
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  const curve = details?.namedCurve ?? ''
  const accepted =
    (type === 'ec' && ['prime256v1', 'secp384r1', 'secp521r1'].includes(curve)) ||
    (type === 'rsa' && (details?.modulusLength ?? 0) >= 2048) ||
    type === 'ed25519'
  if (accepted) return key
  throw malformed('not ECDSA on P-256, P-384 or P-521, RSA of 2048 bits or more, or Ed25519')
}

/** The JSON inside cosign's PEM. Throws `MalformedError` ERR_SIGNING_KEY. */
export function parseCosignKey(pem: string): EncryptedKey {
  try {
    const body = fromBase64((COSIGN_PEM.exec(pem)?.[1] ?? '').replaceAll(/\s/g, ''), 'signing key')
    const document = asObject(parseStrictJson(body, 'signing key'), 'signing key')
    const kdf = asObject(document.kdf, 'kdf')
    const cipher = asObject(document.cipher, 'cipher')
    if (kdf.name !== 'scrypt' || cipher.name !== 'nacl/secretbox') throw malformed('encrypted in an unknown way')
    const params = asObject(kdf.params, 'kdf.params')
    const key = {
      N: bounded(params.N, 2, MAX_N),
      r: bounded(params.r, 1, MAX_FACTOR),
      p: bounded(params.p, 1, MAX_FACTOR),
      salt: bytes(kdf.salt, 'kdf.salt'),
      nonce: bytes(cipher.nonce, 'cipher.nonce'),
      ciphertext: bytes(document.ciphertext, 'ciphertext'),
    }
    if ((key.N & (key.N - 1)) !== 0) throw malformed('its scrypt cost is not a power of two')
    return key
  } catch (cause) {
    if (!(cause instanceof MalformedError) || cause.code === 'ERR_SIGNING_KEY') throw cause
    throw malformed(cause.message, cause)
  }
}

function openCosignKey(pem: string, password: string | undefined): KeyObject {
  const encrypted = parseCosignKey(pem)
  if (password === undefined) throw wrongPassword('it is encrypted, and no password was given')
  const der = openSecretbox(derive(encrypted, password), encrypted.nonce, encrypted.ciphertext)
  if (der === undefined) throw wrongPassword('the password does not open it')
  return createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' })
}

function openPem(pem: string, password: string | undefined): KeyObject {
  try {
    return createPrivateKey(password === undefined ? pem : { key: pem, passphrase: password })
  } catch (cause) {
    if (/ENCRYPTED/.test(pem)) throw wrongPassword(errorText(cause), cause)
    throw malformed('not a private key in PEM form', cause)
  }
}

function derive({ N, r, p, salt }: Pick<EncryptedKey, 'N' | 'r' | 'p' | 'salt'>, password: string): Uint8Array {
  return scryptSync(password, salt, KEY_BYTES, { N, r, p, maxmem: 130 * N * r + 1024 * 1024 })
}

function bounded(value: JsonValue | undefined, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw malformed(`its scrypt parameters are not from ${min} to ${max}`)
}

function bytes(value: JsonValue | undefined, what: string): Uint8Array {
  return fromBase64(asString(value, what), what)
}

function wrongPassword(why: string, cause?: unknown): UnverifiedError {
  return new UnverifiedError('ERR_SIGNING_KEY_PASSWORD', `the signing key cannot be opened: ${why}`, {
    hint: 'Give the file that holds its password: --password FILE.',
    ...(cause === undefined ? {} : { cause }),
  })
}

function malformed(why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_SIGNING_KEY', `the signing key: ${why}`, {
    hint: 'Make one with: caisson image keygen.',
    ...(cause === undefined ? {} : { cause }),
  })
}
