/**
 * Rotating keys, shared by all processes on one store.
 *
 * The newest key is used; older ones stay readable for as long as something made with them may still be valid, then
 * they are deleted. Two processes that find the key too old at the same moment agree, because the replacement is
 * decided under the store's write lock.
 */
import type { Database } from './database.ts'
import { integer, type Row, text } from './row.ts'

export interface StoredKey {
  readonly kid: string
  readonly createdMs: number
  /** Private key material as text, in the form of the ring's `generate`. */
  readonly material: string
}

export interface KeyRingOptions {
  readonly database: Database
  /** Names the ring within the store: "token", "session". */
  readonly kind: string
  /** A key older than this is replaced when next needed, milliseconds. */
  readonly rotateAfterMs: number
  /** Longest validity of anything made with a key, milliseconds: replaced keys are kept that long. */
  readonly keepMs: number
  readonly now: () => Date
  readonly generate: () => { readonly kid: string; readonly material: string }
}

export class KeyRing {
  readonly #options: KeyRingOptions

  constructor(options: KeyRingOptions) {
    this.#options = options
  }

  /** The key to use now; makes one when there is none or it is too old. */
  current(): StoredKey {
    return this.#fresh() ?? this.#options.database.transaction(() => this.#fresh() ?? this.#rotate())
  }

  /** A key that may still be in use, by its id. */
  find(kid: string): StoredKey | undefined {
    const { database, kind } = this.#options
    const row = database.get('SELECT kid, created_ms, material FROM keys WHERE kind = ? AND kid = ?', kind, kid)
    const key = row === undefined ? undefined : toKey(row)
    return key === undefined || this.#outlived(key) ? undefined : key
  }

  /** Newest first. */
  all(): readonly StoredKey[] {
    const { database, kind } = this.#options
    return database
      .all('SELECT kid, created_ms, material FROM keys WHERE kind = ? ORDER BY created_ms DESC, rowid DESC', kind)
      .map(toKey)
      .filter((key) => !this.#outlived(key))
  }

  /** Replaces the current key at once, as after a suspected leak; the old one stays valid for `keepMs`. */
  rotate(): StoredKey {
    return this.#options.database.transaction(() => this.#rotate())
  }

  #fresh(): StoredKey | undefined {
    const { now, rotateAfterMs } = this.#options
    const newest = this.all()[0]
    return newest !== undefined && now().getTime() - newest.createdMs < rotateAfterMs ? newest : undefined
  }

  #rotate(): StoredKey {
    const { database, kind, now, generate, rotateAfterMs, keepMs } = this.#options
    const createdMs = now().getTime()
    const { kid, material } = generate()
    database.run('DELETE FROM keys WHERE kind = ? AND created_ms < ?', kind, createdMs - rotateAfterMs - keepMs)
    database.run(
      'INSERT INTO keys (kid, kind, created_ms, material) VALUES (?, ?, ?, ?)',
      kid,
      kind,
      createdMs,
      material,
    )
    return { kid, createdMs, material }
  }

  #outlived(key: StoredKey): boolean {
    const { now, rotateAfterMs, keepMs } = this.#options
    return now().getTime() - key.createdMs > rotateAfterMs + keepMs
  }
}

function toKey(row: Row): StoredKey {
  return { kid: text(row, 'kid'), createdMs: integer(row, 'created_ms'), material: text(row, 'material') }
}
