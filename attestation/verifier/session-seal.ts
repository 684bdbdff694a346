/**
 * Stateless sessions: what the verifier must remember between challenge and answer travels in the client's cookie,
 * sealed (AES-256-GCM, 96-bit random IV) under a key that all verifier processes of one store share.
 *
 * A seal proves origin and hides the TPM secret; it does not prove single use, which is the store's business.
 *
 * Cookie value: base64url of version 1 (1 byte) ‖ key id (8) ‖ IV (12) ‖ ciphertext ‖ tag (16). Version and key id are
 * authenticated.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from 'node:crypto'
import { fromBase64Url, toBase64Url, toHex } from '#protocol/encoding'
import { UnverifiedError } from '#protocol/errors'
import { KeyRing, type KeyRingOptions, type StoredKey } from '../store/key-ring.ts'

const VERSION = 1
const KEY_ID_BYTES = 8
const IV_BYTES = 12
const TAG_BYTES = 16
const HEADER_BYTES = 1 + KEY_ID_BYTES
/** RFC 6265 section 6.1: browsers and libraries keep cookies of 4096 bytes; ours stay far below. */
const MAX_COOKIE_CHARACTERS = 3_000

/** Where a tenant's keys are, and how fast they age. */
export type RingPlace = Pick<KeyRingOptions, 'database' | 'sealing' | 'tenant' | 'rotateAfterMs' | 'now'>

export class SessionSealer {
  readonly #ring: KeyRing
  readonly #now: () => Date

  constructor(options: RingPlace & { sessionLifetimeMs: number }) {
    this.#now = options.now
    this.#ring = new KeyRing({
      ...options,
      kind: 'session',
      keepMs: options.sessionLifetimeMs,
      generate: () => ({
        kid: toHex(randomBytes(KEY_ID_BYTES)),
        material: toBase64Url(randomBytes(32)),
      }),
    })
  }

  /** @param purpose separates kinds of sessions: one sealed for another purpose does not open */
  async seal(purpose: string, expiresMs: number, content: object): Promise<string> {
    const key = await this.#ring.current()
    const header = Buffer.concat([Uint8Array.of(VERSION), Buffer.from(key.kid, 'hex')])
    const iv = randomBytes(IV_BYTES)
    const cipher = createCipheriv('aes-256-gcm', keyOf(key), iv)
    cipher.setAAD(Buffer.concat([header, Buffer.from(purpose)]))
    const sealed = cipher.update(JSON.stringify({ ...content, expiresMs }), 'utf8')
    return toBase64Url(Buffer.concat([header, iv, sealed, cipher.final(), cipher.getAuthTag()]))
  }

  /**
   * The content as it was sealed.
   *
   * @throws UnverifiedError ERR_SESSION_INVALID for anything this store's verifiers did not seal, ERR_SESSION_EXPIRED
   * @throws UnavailableError as the store, when it does not give the key
   */
  async open(purpose: string, cookie: string): Promise<unknown> {
    const content = await this.#decrypt(purpose, cookie)
    if (typeof content !== 'object' || content === null || !('expiresMs' in content)) throw invalid()
    if (typeof content.expiresMs !== 'number' || content.expiresMs <= this.#now().getTime()) {
      throw new UnverifiedError('ERR_SESSION_EXPIRED', 'the session has expired', {
        hint: 'Start again with a new request for a challenge.',
      })
    }
    return content
  }

  async #decrypt(purpose: string, cookie: string): Promise<unknown> {
    const bytes = bytesOf(cookie)
    // Not within `try`: a store that does not answer says nothing about who made the session.
    const key = await this.#ring.find(toHex(bytes.subarray(1, HEADER_BYTES)))
    if (key === undefined) throw invalid()
    try {
      return JSON.parse(decrypted(bytes, keyOf(key), purpose))
    } catch (cause) {
      throw invalid(cause)
    }
  }
}

/** Of the form and version that we make. @throws UnverifiedError ERR_SESSION_INVALID */
function bytesOf(cookie: string): Uint8Array {
  if (cookie.length > MAX_COOKIE_CHARACTERS) throw invalid()
  let bytes: Uint8Array
  try {
    bytes = fromBase64Url(cookie, 'session')
  } catch (cause) {
    throw invalid(cause)
  }
  if (bytes[0] !== VERSION || bytes.byteLength < HEADER_BYTES + IV_BYTES + TAG_BYTES) throw invalid()
  return bytes
}

function decrypted(bytes: Uint8Array, key: KeyObject, purpose: string): string {
  const header = bytes.subarray(0, HEADER_BYTES)
  const iv = bytes.subarray(HEADER_BYTES, HEADER_BYTES + IV_BYTES)
  const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
  decipher.setAAD(Buffer.concat([header, Buffer.from(purpose)]))
  decipher.setAuthTag(bytes.subarray(-TAG_BYTES))
  const plain = decipher.update(bytes.subarray(HEADER_BYTES + IV_BYTES, -TAG_BYTES))
  return Buffer.concat([plain, decipher.final()]).toString('utf8')
}

/** The ring decides which keys there are; what was read of one is kept as long as the ring keeps it. */
const read = new WeakMap<StoredKey, KeyObject>()

function keyOf(stored: StoredKey): KeyObject {
  const known = read.get(stored)
  if (known !== undefined) return known
  const key = createSecretKey(fromBase64Url(stored.material, 'session key'))
  read.set(stored, key)
  return key
}

function invalid(cause?: unknown): UnverifiedError {
  return new UnverifiedError('ERR_SESSION_INVALID', 'the session was not issued by this verifier', {
    hint: 'Start again with a new request for a challenge, and send its cookie back.',
    cause,
  })
}
