/**
 * SQLite as the verifier's store: Node's own module, one file. Several processes may share it (WAL, waiting for locks
 * instead of failing). The file is created readable by its owner alone, and SQLite gives its side files (-wal, -shm) the
 * same mode.
 *
 * Each commit reaches the disk, which takes longer than everything else that an attestation does. So transactions that
 * wait at the same time are committed together, each within a savepoint of its own, and none has happened for its caller
 * before all of them have.
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
/** Transactions that are committed together at most: reads wait meanwhile. */
const MAX_GROUP = 64

interface WaitingTransaction {
  /** Does the work; what comes back tells its caller. */
  readonly work: () => Promise<() => void>
  readonly reject: (error: unknown) => void
}

export class SqliteDatabase implements Database {
  readonly #db: DatabaseSync
  readonly #sql: Sql
  #waiting: WaitingTransaction[] = []
  /** The group under way: one connection, so nothing else is read or written until its end. */
  #group: Promise<void> | undefined
  #isScheduled = false

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
    return await new Promise<T>((resolve, reject) => {
      this.#waiting.push({
        work: async () => {
          const result = await work(this.#sql)
          return () => resolve(result)
        },
        reject,
      })
      this.#schedule()
    })
  }

  async run(sql: string, ...values: readonly SqlValue[]): Promise<number> {
    return await this.transaction((own) => own.run(sql, ...values))
  }

  async get(sql: string, ...values: readonly SqlValue[]): Promise<Row | undefined> {
    await this.#betweenGroups()
    return await this.#sql.get(sql, ...values)
  }

  async all(sql: string, ...values: readonly SqlValue[]): Promise<readonly Row[]> {
    await this.#betweenGroups()
    return await this.#sql.all(sql, ...values)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    while (this.#isScheduled || this.#group !== undefined) await (this.#group ?? turn())
    if (this.#db.isOpen) this.#db.close()
  }

  async #betweenGroups(): Promise<void> {
    while (this.#group !== undefined) await this.#group
  }

  /** After everything that arrived in this turn of the event loop was looked at: it is one group then. */
  #schedule(): void {
    if (this.#isScheduled || this.#group !== undefined) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      this.#group = this.#commit(this.#waiting.splice(0, MAX_GROUP)).finally(() => {
        this.#group = undefined
        if (this.#waiting.length > 0) this.#schedule()
      })
    })
  }

  async #commit(group: readonly WaitingTransaction[]): Promise<void> {
    const tellCallers: (() => void)[] = []
    try {
      await guard(() => this.#db.exec('BEGIN IMMEDIATE'))
      for (const transaction of group) tellCallers.push(await this.#attempt(transaction))
      await guard(() => this.#db.exec('COMMIT'))
    } catch (error) {
      if (this.#db.isOpen && this.#db.isTransaction) this.#db.exec('ROLLBACK')
      for (const { reject } of group) reject(error)
      return
    }
    for (const tell of tellCallers) tell()
  }

  /** What fails takes nothing else of its group with it. */
  async #attempt({ work, reject }: WaitingTransaction): Promise<() => void> {
    await guard(() => this.#db.exec('SAVEPOINT one_of_group'))
    try {
      const tell = await work()
      await guard(() => this.#db.exec('RELEASE one_of_group'))
      return tell
    } catch (error) {
      if (!this.#db.isTransaction) throw error // a full disk and the like: SQLite gave up the whole group
      await guard(() => this.#db.exec('ROLLBACK TO one_of_group; RELEASE one_of_group'))
      return () => reject(error)
    }
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
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
