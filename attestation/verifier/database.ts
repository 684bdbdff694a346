/**
 * The verifier's SQLite file: opening, migrating, transactions.
 *
 * Several verifier processes may share one file (WAL, waiting for locks instead of failing), so nothing that decides
 * single use is kept in memory. The file holds secrets: it is created readable by its owner alone, and SQLite gives its
 * side files (-wal, -shm) the same mode.
 */
import { chmodSync, closeSync, openSync } from 'node:fs'
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import { CaissonError, UnavailableError } from '#protocol/errors'
import { MIGRATIONS } from './migrations.ts'
import { integer, type Row } from './row.ts'

/** SQLite's name for a store that lives and dies with the process. */
export const IN_MEMORY = ':memory:'

/** How long one process waits for another's write, milliseconds. */
const LOCK_TIMEOUT_MS = 5_000

export class Database implements Disposable {
  readonly #db: DatabaseSync

  private constructor(db: DatabaseSync) {
    this.#db = db
  }

  /**
   * Opens or creates the file and brings it to this version's schema.
   *
   * @throws UnavailableError ERR_STORE_OPEN when the file cannot be used, ERR_STORE_VERSION when a newer release wrote it
   */
  static open(path: string): Database {
    let db: DatabaseSync | undefined
    try {
      if (path !== IN_MEMORY) {
        closeSync(openSync(path, 'a', 0o600))
        chmodSync(path, 0o600)
      }
      db = new DatabaseSync(path, { timeout: LOCK_TIMEOUT_MS })
      // FULL: a spent challenge must still be spent after a power cut, so each commit reaches the disk.
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON')
      const store = new Database(db)
      store.transaction(() => migrate(store, path))
      return store
    } catch (cause) {
      db?.close()
      if (cause instanceof CaissonError) throw cause
      throw new UnavailableError('ERR_STORE_OPEN', `cannot open the verifier's store ${JSON.stringify(path)}`, {
        hint: 'Check that the directory exists, is writable and lies on a local file system.',
        cause,
      })
    }
  }

  /**
   * Runs `work` with the write lock held; all of it happens or nothing does.
   *
   * @throws UnavailableError ERR_STORE_BUSY when another process held the lock too long
   */
  transaction<T>(work: () => T): T {
    this.#guard(() => this.#db.exec('BEGIN IMMEDIATE'))
    try {
      const result = work()
      this.#guard(() => this.#db.exec('COMMIT'))
      return result
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
      throw error
    }
  }

  run(sql: string, ...values: SQLInputValue[]): number {
    return Number(this.#guard(() => this.#statement(sql).run(...values)).changes)
  }

  get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#guard(() => this.#statement(sql).get(...values))
  }

  all(sql: string, ...values: SQLInputValue[]): readonly Row[] {
    return this.#guard(() => this.#statement(sql).all(...values))
  }

  /** Several statements without parameters. */
  execute(sql: string): void {
    this.#guard(() => this.#db.exec(sql))
  }

  [Symbol.dispose](): void {
    if (this.#db.isOpen) this.#db.close()
  }

  /** Statements are few and fixed, so they are compiled once. */
  readonly #statements = new Map<string, ReturnType<DatabaseSync['prepare']>>()

  #statement(sql: string): ReturnType<DatabaseSync['prepare']> {
    const known = this.#statements.get(sql)
    if (known !== undefined) return known
    const statement = this.#db.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }

  #guard<T>(work: () => T): T {
    try {
      return work()
    } catch (cause) {
      const locked = cause instanceof Error && 'errcode' in cause && cause.errcode === SQLITE_BUSY
      throw new UnavailableError(
        locked ? 'ERR_STORE_BUSY' : 'ERR_STORE_FAILED',
        locked ? "the verifier's store is locked by another process" : "the verifier's store failed",
        { cause, hint: locked ? 'Try again.' : "Check the disk that holds the verifier's store." },
      )
    }
  }
}

/** sqlite3.h, primary result code. */
const SQLITE_BUSY = 5

function migrate(store: Database, path: string): void {
  const version = integer(store.get('PRAGMA user_version'), 'user_version')
  if (version > MIGRATIONS.length) {
    throw new UnavailableError(
      'ERR_STORE_VERSION',
      `${JSON.stringify(path)} has schema version ${version}, this release knows ${MIGRATIONS.length}`,
      { hint: 'Start the release that wrote it, or a newer one.' },
    )
  }
  for (const step of MIGRATIONS.slice(version)) {
    if (typeof step === 'string') store.execute(step)
    else step(store)
  }
  store.execute(`PRAGMA user_version = ${MIGRATIONS.length}`)
}
