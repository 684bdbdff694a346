/**
 * SQLite as the verifier's store: Node's own module, one file. Several processes may share it (WAL, waiting for locks
 * instead of failing). The file is created readable by its owner alone, and SQLite gives its side files (-wal, -shm) the
 * same mode.
 */
import { chmodSync, closeSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { CaissonError, UnavailableError } from '#protocol/errors'
import type { Database, Sql, SqlValue } from './database.ts'
import { integer, type Row } from './row.ts'
import { SCHEMA_VERSION, SQLITE_STEPS } from './schema.ts'

/** SQLite's name for a store that lives and dies with the process. */
export const IN_MEMORY = ':memory:'

/** How long one process waits for another's write, milliseconds. */
const LOCK_TIMEOUT_MS = 5_000
/** sqlite3.h, primary result code. */
const SQLITE_BUSY = 5

export class SqliteDatabase implements Database {
  readonly #db: DatabaseSync
  readonly #sql: Sql
  /** The end of the last operation: one connection, so one after the other. */
  #last: Promise<unknown> = Promise.resolve()

  private constructor(db: DatabaseSync) {
    this.#db = db
    this.#sql = new SqliteStatements(db)
  }

  /**
   * Opens or creates the file and brings it to this version's schema.
   *
   * @throws UnavailableError ERR_STORE_OPEN when the file cannot be used, ERR_STORE_VERSION when a newer release wrote it
   */
  static async open(path: string): Promise<SqliteDatabase> {
    let db: DatabaseSync | undefined
    try {
      if (path !== IN_MEMORY) {
        closeSync(openSync(path, 'a', 0o600))
        chmodSync(path, 0o600)
      }
      db = new DatabaseSync(path, { timeout: LOCK_TIMEOUT_MS })
      // FULL: a spent challenge must still be spent after a power cut, so each commit reaches the disk.
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON')
      const store = new SqliteDatabase(db)
      await store.transaction((sql) => migrate(sql, path))
      return store
    } catch (cause) {
      db?.close()
      if (cause instanceof CaissonError && cause.code !== 'ERR_STORE_FAILED') throw cause
      throw new UnavailableError('ERR_STORE_OPEN', `cannot open the verifier's store ${JSON.stringify(path)}`, {
        hint: 'Check that the directory exists, is writable and lies on a local file system.',
        cause,
      })
    }
  }

  async transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    return await this.#next(async () => {
      await guard(() => this.#db.exec('BEGIN IMMEDIATE'))
      try {
        const result = await work(this.#sql)
        await guard(() => this.#db.exec('COMMIT'))
        return result
      } catch (error) {
        if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
        throw error
      }
    })
  }

  async run(sql: string, ...values: readonly SqlValue[]): Promise<number> {
    return await this.#next(() => this.#sql.run(sql, ...values))
  }

  async get(sql: string, ...values: readonly SqlValue[]): Promise<Row | undefined> {
    return await this.#next(() => this.#sql.get(sql, ...values))
  }

  async all(sql: string, ...values: readonly SqlValue[]): Promise<readonly Row[]> {
    return await this.#next(() => this.#sql.all(sql, ...values))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#next(async () => {
      if (this.#db.isOpen) this.#db.close()
    })
  }

  async #next<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(work, work)
    this.#last = mine.catch(() => {})
    return await mine
  }
}

class SqliteStatements implements Sql {
  readonly #db: DatabaseSync
  /** Statements are few and fixed, so they are compiled once. */
  readonly #statements = new Map<string, ReturnType<DatabaseSync['prepare']>>()

  constructor(db: DatabaseSync) {
    this.#db = db
  }

  run(sql: string, ...values: readonly SqlValue[]): Promise<number> {
    return guard(() => Number(this.#statement(sql).run(...values).changes))
  }

  get(sql: string, ...values: readonly SqlValue[]): Promise<Row | undefined> {
    return guard(() => this.#statement(sql).get(...values))
  }

  all(sql: string, ...values: readonly SqlValue[]): Promise<readonly Row[]> {
    return guard(() => this.#statement(sql).all(...values))
  }

  #statement(sql: string): ReturnType<DatabaseSync['prepare']> {
    const known = this.#statements.get(sql)
    if (known !== undefined) return known
    const statement = this.#db.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }
}

async function guard<T>(work: () => T): Promise<T> {
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

async function migrate(sql: Sql, path: string): Promise<void> {
  const version = integer(await sql.get('PRAGMA user_version'), 'user_version')
  if (version > SCHEMA_VERSION) {
    throw new UnavailableError(
      'ERR_STORE_VERSION',
      `${JSON.stringify(path)} has schema version ${version}, this release knows ${SCHEMA_VERSION}`,
      { hint: 'Start the release that wrote it, or a newer one.' },
    )
  }
  for (const step of SQLITE_STEPS.slice(version)) await step(sql)
  await sql.run(`PRAGMA user_version = ${SCHEMA_VERSION}`)
}
