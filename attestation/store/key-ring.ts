/**
 * Rotating keys of one tenant, shared by all processes on one store.
 *
 * The newest key is used; older ones stay readable for as long as something made with them may still be valid, then
 * they are deleted. Two processes that find the key too old at the same moment agree, because the replacement is
 * decided under the store's write lock.
 */
import type { Database, Sql } from './database.ts'
import { blob, integer, type Row, text } from './row.ts'
import type { Sealing } from './sealing.ts'

export interface StoredKey {
  readonly kid: string
  readonly createdMs: number
  /** Private key material as text, in the form of the ring's `generate`. */
  readonly material: string
}

export interface KeyRingOptions {
  readonly database: Database
  readonly sealing: Sealing
  readonly tenant: string
  /** Names the ring within the tenant: "token", "session". */
  readonly kind: string
  /** A key older than this is replaced when next needed, milliseconds. */
  readonly rotateAfterMs: number
  /** Longest validity of anything made with a key, milliseconds: replaced keys are kept that long. */
  readonly keepMs: number
  readonly now: () => Date
  readonly generate: () => { readonly kid: string; readonly material: string }
}

/** How long a process believes its copy of the ring without asking the store: a rotation elsewhere is seen after that. */
const CACHE_MS = 1_000

export class KeyRing {
  readonly #options: KeyRingOptions
  #cached: { readonly keys: readonly StoredKey[]; readonly atMs: number } | undefined

  constructor(options: KeyRingOptions) {
    this.#options = options
  }

  /** The key to use now; makes one when there is none or it is too old. */
  async current(): Promise<StoredKey> {
    const fresh = this.#freshOf(await this.all())
    if (fresh !== undefined) return fresh
    const key = await this.#options.database.transaction(
      async (sql) => this.#freshOf(await this.#load(sql)) ?? (await this.#rotate(sql)),
    )
    this.#cached = undefined // it does not have the key, whoever made it
    return key
  }

  /** A key that may still be in use, by its id. */
  async find(kid: string): Promise<StoredKey | undefined> {
    const known = (await this.all()).find((key) => key.kid === kid)
    // Another process may have made it a moment ago.
    return known ?? (await this.#reload()).find((key) => key.kid === kid)
  }

  /** Newest first. */
  async all(): Promise<readonly StoredKey[]> {
    const nowMs = this.#options.now().getTime()
    const cached = this.#cached
    if (cached !== undefined && nowMs >= cached.atMs && nowMs - cached.atMs < CACHE_MS) {
      return cached.keys.filter((key) => !this.#outlived(key))
    }
    return await this.#reload()
  }

  /** All of them as the store has them now: another process may have made one a moment ago. Newest first. */
  async refreshed(): Promise<readonly StoredKey[]> {
    return await this.#reload()
  }

  /** Replaces the current key at once, as after a suspected leak; the old one stays valid for `keepMs`. */
  async rotate(): Promise<StoredKey> {
    const key = await this.#options.database.transaction((sql) => this.#rotate(sql))
    this.#cached = undefined
    return key
  }

  async #reload(): Promise<readonly StoredKey[]> {
    const keys = await this.#load(this.#options.database)
    this.#cached = { keys, atMs: this.#options.now().getTime() }
    return keys
  }

  async #load(sql: Sql): Promise<readonly StoredKey[]> {
    const { tenant, kind } = this.#options
    const rows = await sql.all(
      'SELECT kid, created_ms, material FROM signing_keys WHERE tenant = ? AND kind = ? ORDER BY created_ms DESC, seq DESC',
      tenant,
      kind,
    )
    return rows.map((row) => this.#keyOf(row)).filter((key) => !this.#outlived(key))
  }

  #freshOf(keys: readonly StoredKey[]): StoredKey | undefined {
    const { now, rotateAfterMs } = this.#options
    const [newest] = keys
    return newest !== undefined && now().getTime() - newest.createdMs < rotateAfterMs ? newest : undefined
  }

  async #rotate(sql: Sql): Promise<StoredKey> {
    const { sealing, tenant, kind, now, generate, rotateAfterMs, keepMs } = this.#options
    const createdMs = now().getTime()
    const { kid, material } = generate()
    await sql.run(
      'DELETE FROM signing_keys WHERE tenant = ? AND kind = ? AND created_ms < ?',
      tenant,
      kind,
      createdMs - rotateAfterMs - keepMs,
    )
    await sql.run(
      'INSERT INTO signing_keys (tenant, kind, kid, created_ms, material) VALUES (?, ?, ?, ?, ?)',
      tenant,
      kind,
      kid,
      createdMs,
      sealing.seal(Buffer.from(material), this.#place(kid)),
    )
    return { kid, createdMs, material }
  }

  #keyOf(row: Row): StoredKey {
    const kid = text(row, 'kid')
    const material = this.#options.sealing.open(blob(row, 'material'), this.#place(kid))
    return { kid, createdMs: integer(row, 'created_ms'), material: Buffer.from(material).toString('utf8') }
  }

  #place(kid: string): string {
    return `key ${this.#options.tenant} ${this.#options.kind} ${kid}`
  }

  #outlived(key: StoredKey): boolean {
    const { now, rotateAfterMs, keepMs } = this.#options
    return now().getTime() - key.createdMs > rotateAfterMs + keepMs
  }
}
