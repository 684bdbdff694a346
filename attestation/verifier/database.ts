/**
 * The verifier's SQLite file: opening, migrating, transactions.
 *
 * Several verifier processes may share one file (WAL, waiting for locks instead of failing), so nothing that decides
 * single use is kept in memory. The file holds secrets: it is created readable by its owner alone, and SQLite gives its
 * side files (-wal, -shm) the same mode.
 */
import { chmodSync, closeSync, openSync } from 'node:fs'
import { DatabaseSync, type SQLInputValue, type SQLOutputValue } from 'node:sqlite'
import { CaissonError, UnavailableError } from '#protocol/errors'

/** SQLite's name for a store that lives and dies with the process. */
export const IN_MEMORY = ':memory:'

/** How long one process waits for another's write, milliseconds. */
const LOCK_TIMEOUT_MS = 5_000

/** Entry n brings a file from version n to n + 1. Entries are never edited after a release, only added. */
const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE keys (
    kid TEXT PRIMARY KEY, kind TEXT NOT NULL, created_ms INTEGER NOT NULL, material TEXT NOT NULL
  ) STRICT;
  CREATE TABLE spent_challenges (id TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE INDEX spent_by_expiry ON spent_challenges (expires_ms);
  CREATE TABLE attestations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, handshake TEXT, at_ms INTEGER NOT NULL,
    stage TEXT NOT NULL, tee TEXT NOT NULL, verdict TEXT NOT NULL, code TEXT, reason TEXT, hint TEXT,
    details TEXT NOT NULL, claims TEXT
  ) STRICT;
  CREATE INDEX attestations_by_handshake ON attestations (handshake);
  CREATE TABLE resources (
    path TEXT PRIMARY KEY, content BLOB NOT NULL, release TEXT NOT NULL, version INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE reference_values (id TEXT PRIMARY KEY, document TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT;
  CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, verdict TEXT NOT NULL, correlation TEXT
  ) STRICT;
  `,
]

export type Row = Readonly<Record<string, SQLOutputValue>>

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
  for (const step of MIGRATIONS.slice(version)) store.execute(step)
  store.execute(`PRAGMA user_version = ${MIGRATIONS.length}`)
}

/** A TEXT column; a wrong type means the file is not ours. */
export function text(row: Row | undefined, column: string): string {
  const value = row?.[column]
  if (typeof value !== 'string') throw corrupt(column)
  return value
}

export function optionalText(row: Row | undefined, column: string): string | undefined {
  return row?.[column] === null ? undefined : text(row, column)
}

export function integer(row: Row | undefined, column: string): number {
  const value = row?.[column]
  if (typeof value !== 'number') throw corrupt(column)
  return value
}

export function blob(row: Row | undefined, column: string): Uint8Array {
  const value = row?.[column]
  if (!(value instanceof Uint8Array)) throw corrupt(column)
  return value
}

function corrupt(column: string): UnavailableError {
  return new UnavailableError('ERR_STORE_FAILED', `the verifier's store holds an unreadable ${column}`)
}
