/** The key outside of the store that wraps its data keys. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { concatBytes } from '#protocol/encoding'
import { MalformedError, UnavailableError } from '#protocol/errors'

export interface KeyWrapper {
  /** @param id the data key's, authenticated with it */
  wrap(key: Uint8Array, id: string): Promise<Uint8Array>
  /** @throws UnavailableError ERR_STORE_KEY when it was wrapped by another key */
  unwrap(wrapped: Uint8Array, id: string): Promise<Uint8Array>
}

const KEY_BYTES = 32
const IV_BYTES = 12
const TAG_BYTES = 16

/** AES-256-GCM with a key from a file or the environment. */
export class LocalKeyWrapper implements KeyWrapper {
  readonly #key: Uint8Array

  /** @param key 32 bytes */
  constructor(key: Uint8Array) {
    if (key.byteLength !== KEY_BYTES) throw malformed(`has ${key.byteLength} bytes`)
    this.#key = key
  }

  async wrap(key: Uint8Array, id: string): Promise<Uint8Array> {
    const iv = randomBytes(IV_BYTES)
    const cipher = createCipheriv('aes-256-gcm', this.#key, iv)
    cipher.setAAD(Buffer.from(`data key ${id}`))
    return concatBytes(iv, cipher.update(key), cipher.final(), cipher.getAuthTag())
  }

  async unwrap(wrapped: Uint8Array, id: string): Promise<Uint8Array> {
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#key, wrapped.subarray(0, IV_BYTES), {
        authTagLength: TAG_BYTES,
      })
      decipher.setAAD(Buffer.from(`data key ${id}`))
      decipher.setAuthTag(wrapped.subarray(-TAG_BYTES))
      return concatBytes(decipher.update(wrapped.subarray(IV_BYTES, -TAG_BYTES)), decipher.final())
    } catch (cause) {
      throw wrongStoreKey(cause)
    }
  }
}

/** 64 hex digits, as `createStoreKey` writes them. @throws MalformedError ERR_STORE_KEY_MALFORMED */
export function parseStoreKey(text: string): Uint8Array {
  const digits = text.trim()
  if (!/^[0-9a-fA-F]{64}$/.test(digits)) throw malformed('is not 64 hexadecimal digits')
  return new Uint8Array(Buffer.from(digits, 'hex'))
}

/** Text of a new key. */
export function createStoreKey(): string {
  return `${randomBytes(KEY_BYTES).toString('hex')}\n`
}

export function wrongStoreKey(cause?: unknown): UnavailableError {
  return new UnavailableError('ERR_STORE_KEY', "this is not the key that the verifier's store is sealed with", {
    hint: 'Give the key that the store was made with (--store-key); without it, its secrets are lost.',
    ...(cause === undefined ? {} : { cause }),
  })
}

function malformed(problem: string): MalformedError {
  return new MalformedError('ERR_STORE_KEY_MALFORMED', `the store's key ${problem}`, {
    hint: 'Use 64 hexadecimal digits: 32 random bytes.',
  })
}
