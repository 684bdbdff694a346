/**
 * Secrets at rest: each secret column is sealed (AES-256-GCM, 96-bit random IV) under a data key of the store, and the
 * data keys are wrapped by a key that is kept outside of it. Whoever has the store and not that key learns names, sizes
 * and times. What a value belongs to is authenticated with it, so that sealed values cannot change places.
 *
 * Sealed value: 1 (one byte) ‖ data key's id (8) ‖ IV (12) ‖ ciphertext ‖ tag (16). A leading 0 marks a value of a store
 * that was not sealed yet.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomBytes } from 'node:crypto'
import { concatBytes, toHex } from '#protocol/encoding'
import { UnavailableError } from '#protocol/errors'
import type { Database, Sql } from './database.ts'
import type { KeyWrapper } from './key-wrapper.ts'
import { blob, text } from './row.ts'

const PLAIN = 0
const SEALED = 1
const ID_BYTES = 8
const IV_BYTES = 12
const TAG_BYTES = 16
const KEY_BYTES = 32
const HEADER_BYTES = 1 + ID_BYTES

interface DataKey {
  readonly id: string
  readonly key: Uint8Array
}

export class Sealing {
  /** As key objects: given as bytes each use costs twice as much. */
  readonly #keys: ReadonlyMap<string, KeyObject>
  readonly #current: { readonly id: string; readonly key: KeyObject }

  private constructor(keys: readonly DataKey[], current: DataKey) {
    this.#keys = new Map(keys.map(({ id, key }) => [id, createSecretKey(key)]))
    this.#current = { id: current.id, key: createSecretKey(current.key) }
  }

  /**
   * Unwraps the store's data keys; makes the first one.
   *
   * @throws UnavailableError ERR_STORE_KEY when the wrapping key is not the store's
   */
  static async open(database: Database, wrapper: KeyWrapper, now: Date): Promise<Sealing> {
    return await database.transaction(async (sql) => {
      const rows = await sql.all('SELECT id, wrapped FROM data_keys ORDER BY created_ms, id')
      const keys: DataKey[] = []
      for (const row of rows) {
        const id = text(row, 'id')
        keys.push({ id, key: await wrapper.unwrap(blob(row, 'wrapped'), id) })
      }
      const current = keys.at(-1) ?? (await addKey(sql, wrapper, now))
      return new Sealing([...keys, current], current)
    })
  }

  /** @param place what the value belongs to: "resource default a/b/c 3" */
  seal(plain: Uint8Array, place: string): Uint8Array {
    const { id, key } = this.#current
    const header = concatBytes(Uint8Array.of(SEALED), Buffer.from(id, 'hex'))
    const iv = randomBytes(IV_BYTES)
    const cipher = createCipheriv('aes-256-gcm', key, iv)
    cipher.setAAD(concatBytes(header, Buffer.from(place)))
    return concatBytes(header, iv, cipher.update(plain), cipher.final(), cipher.getAuthTag())
  }

  /** @throws UnavailableError ERR_STORE_SEALED when the value was changed, or belongs to another place */
  open(sealed: Uint8Array, place: string): Uint8Array {
    if (sealed[0] === PLAIN) return sealed.slice(1)
    const header = sealed.subarray(0, HEADER_BYTES)
    const key = this.#keys.get(toHex(header.subarray(1)))
    if (sealed[0] !== SEALED || key === undefined || sealed.byteLength < HEADER_BYTES + IV_BYTES + TAG_BYTES) {
      throw unreadable()
    }
    try {
      const iv = sealed.subarray(HEADER_BYTES, HEADER_BYTES + IV_BYTES)
      const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
      decipher.setAAD(concatBytes(header, Buffer.from(place)))
      decipher.setAuthTag(sealed.subarray(-TAG_BYTES))
      return concatBytes(decipher.update(sealed.subarray(HEADER_BYTES + IV_BYTES, -TAG_BYTES)), decipher.final())
    } catch (cause) {
      throw unreadable(cause)
    }
  }
}

/**
 * Wraps all data keys anew: the old wrapping key is of no use any more, and no secret had to be touched.
 *
 * @param makeNext asked for the new wrapping key when the old one has opened all data keys; it must be there to stay
 *   when this resolves
 * @throws UnavailableError ERR_STORE_KEY when the old key is not the store's; then `makeNext` was not asked
 */
export async function rewrap(
  database: Database,
  from: KeyWrapper,
  makeNext: () => Promise<KeyWrapper>,
): Promise<number> {
  return await database.transaction(async (sql) => {
    const keys: DataKey[] = []
    for (const row of await sql.all('SELECT id, wrapped FROM data_keys')) {
      const id = text(row, 'id')
      keys.push({ id, key: await from.unwrap(blob(row, 'wrapped'), id) })
    }
    const next = await makeNext()
    for (const { id, key } of keys) {
      await sql.run('UPDATE data_keys SET wrapped = ? WHERE id = ?', await next.wrap(key, id), id)
      key.fill(0)
    }
    return keys.length
  })
}

/** A value of a store that was not sealed yet. */
export function markPlain(plain: Uint8Array): Uint8Array {
  return concatBytes(Uint8Array.of(PLAIN), plain)
}

export function isMarkedPlain(value: Uint8Array): boolean {
  return value[0] === PLAIN
}

async function addKey(sql: Sql, wrapper: KeyWrapper, now: Date): Promise<DataKey> {
  const id = toHex(randomBytes(ID_BYTES))
  const key = new Uint8Array(randomBytes(KEY_BYTES))
  const wrapped = await wrapper.wrap(key, id)
  await sql.run('INSERT INTO data_keys (id, wrapped, created_ms) VALUES (?, ?, ?)', id, wrapped, now.getTime())
  return { id, key }
}

function unreadable(cause?: unknown): UnavailableError {
  return new UnavailableError('ERR_STORE_SEALED', "a secret of the verifier's store was changed or moved", {
    hint: 'Restore the store from a backup, and ask who had access to it.',
    ...(cause === undefined ? {} : { cause }),
  })
}
