/**
 * Data keys wrapped by a key that stays in a PKCS #11 token: AES-256-GCM inside the token, in the same form as with a key
 * from a file. The token is used when the verifier starts and when the store gets another key, not for each secret.
 */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { decryptInToken, encryptInToken, generateInToken } from '#native/shared/pkcs11/index'
import { concatBytes } from '#protocol/encoding'
import { UnavailableError } from '#protocol/errors'
import { type KeyWrapper, wrongStoreKey } from './key-wrapper.ts'
import type { Pkcs11Key } from './pkcs11-uri.ts'

const IV_BYTES = 12
const TAG_BYTES = 16
const KEY_BYTES = 32
/** What tokens answer to a changed message: CKR_DATA_INVALID, CKR_ENCRYPTED_DATA_INVALID, CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED. */
const NOT_AUTHENTIC = /^C_Decrypt .*0x000000(?:20|40|05|06)\)$/

export class Pkcs11KeyWrapper implements KeyWrapper {
  readonly #key: Pkcs11Key

  constructor(key: Pkcs11Key) {
    this.#key = key
  }

  /** Makes the key in the token. @throws UnavailableError ERR_PKCS11, also when there is one of that name */
  async generate(): Promise<void> {
    await generateInToken(this.#key, this.#pin())
  }

  async wrap(key: Uint8Array, id: string): Promise<Uint8Array> {
    const iv = new Uint8Array(randomBytes(IV_BYTES))
    const sealed = await encryptInToken(this.#key, this.#pin(), { iv, aad: additionalData(id), data: key })
    return concatBytes(iv, sealed)
  }

  async unwrap(wrapped: Uint8Array, id: string): Promise<Uint8Array> {
    if (wrapped.byteLength !== IV_BYTES + KEY_BYTES + TAG_BYTES) throw wrongStoreKey()
    const message = { iv: wrapped.slice(0, IV_BYTES), aad: additionalData(id), data: wrapped.slice(IV_BYTES) }
    try {
      return await decryptInToken(this.#key, this.#pin(), message)
    } catch (error) {
      if (error instanceof UnavailableError && NOT_AUTHENTIC.test(error.message)) throw wrongStoreKey(error)
      throw error
    }
  }

  /** Read when it is needed, not kept. */
  #pin(): string {
    try {
      return readFileSync(this.#key.pinFile, 'utf8').split('\n', 1)[0]?.replace(/\r$/, '') ?? ''
    } catch (cause) {
      throw new UnavailableError('ERR_PKCS11', "the file with the token's PIN cannot be read", {
        hint: 'See pin-source of the PKCS #11 URI.',
        cause,
      })
    }
  }
}

function additionalData(id: string): Uint8Array {
  return new TextEncoder().encode(`data key ${id}`)
}
