/**
 * SQLite as the verifier's store: Node's own module, one file. Several processes may share it (WAL, waiting for locks
 * instead of failing). The file is created readable by its owner alone, and SQLite gives its side files (-wal, -shm) the
 * same mode.
 *
 * Each commit reaches the disk, which takes longer than everything else that an attestation does. So transactions that
 * wait at the same time are committed together, each within a savepoint of its own, and none has happened for its caller
 * before all of them are on the disk. SQLite writes its log and we see to the disk, beside the event loop: the next
 * transactions are prepared meanwhile. They see what was committed before them; whoever is told of them is told when
 * they, and with them all that they saw, are on the disk, too.
 */
import { chmodSync, closeSync, openSync, statSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { CaissonError, UnavailableError } from '#protocol/errors'
import type { Database, Sql, SqlReader, SqlValue } from './database.ts'
import { integer, type Row } from './row.ts'
import { SCHEMA_VERSION, SQLITE_STEPS } from './schema.ts'
import { absentStore, refuseNewer, refuseOther } from './schema-version.ts'
import { WriteAheadLog } from './write-ahead-log.ts'

/** SQLite's name for a store that lives and dies with the process. */
export const IN_MEMORY = ':memory:'

/** How long one process waits for another's write, milliseconds. */
const LOCK_TIMEOUT_MS = 5_000
/** sqlite3.h, primary result code. */
const SQLITE_BUSY = 5
/** Transactions that are committed together at most: reads wait meanwhile. */
const MAX_GROUP = 64
/**
 * Groups begin this far apart at least, milliseconds: each writes the same pages of indexes again, so a few transactions
 * cost little more than one.
 */
const GROUP_EVERY_MS = 3
/** Pages that are kept in memory, KiB: of a store that is asked for what was written lately. */
const CACHE_KIB = 16 * 1024
/** Pages of the log, after which they are copied to the database: most are written again before that. */
const LOG_PAGES = 4_000

interface WaitingTransaction {
  /** Does the work; what comes back tells its caller. */
  readonly work: () => Promise<() => void>
  readonly reject: (error: unknown) => void
}

export class SqliteDatabase implements Database {
  readonly #db: DatabaseSync
  readonly #sql: Sql
  #waiting: WaitingTransaction[] = []
  /** The group or the snapshot under way: one connection, so nothing else is read or written until its end. */
  #busy: Promise<void> | undefined
  #isScheduled = false
  /** Groups that are committed and not yet on the disk. */
  readonly #telling = new Set<Promise<void>>()
  #lastGroupMs = Number.NEGATIVE_INFINITY
  /** Undefined for a store in memory. */
  #log: WriteAheadLog | undefined

  private constructor(db: DatabaseSync) {
    this.#db = db
    this.#sql = new SqliteStatements(db)
  }

  /**
   * Opens or creates the file and brings it to this version's schema.
   *
   * @param openLog what brings the log of this database to the disk
   * @throws UnavailableError ERR_STORE_OPEN when the file cannot be used, ERR_STORE_VERSION when a newer release wrote it
   */
  static async open(path: string, openLog?: (path: string) => WriteAheadLog): Promise<SqliteDatabase> {
    return await SqliteDatabase.#connect(path, (store) => store.transaction(migrate), openLog)
  }

  /**
   * Opens a store as it is.
   *
   * @throws UsageError ERR_STORE_ABSENT
   * @throws UnavailableError ERR_STORE_OPEN, ERR_STORE_VERSION
   */
  static async openExisting(path: string): Promise<SqliteDatabase> {
    // SQLite makes a file where there is none, and takes an empty one for a database.
    if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) === 0) throw absentStore()
    return await SqliteDatabase.#connect(path, async (store) => refuseOther(await versionOf(store)))
  }

  static async #connect(
    path: string,
    prepare: (store: SqliteDatabase) => Promise<void>,
    openLog: (path: string) => WriteAheadLog = (database) => new WriteAheadLog(database),
  ): Promise<SqliteDatabase> {
    let db: DatabaseSync | undefined
    try {
      if (path !== IN_MEMORY) {
        closeSync(openSync(path, 'a', 0o600))
        chmodSync(path, 0o600)
      }
      db = new DatabaseSync(path, { timeout: LOCK_TIMEOUT_MS })
      // FULL: until we see to the disk ourselves, SQLite does.
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON')
      db.exec(`PRAGMA cache_size = -${CACHE_KIB}; PRAGMA wal_autocheckpoint = ${LOG_PAGES}`)
      const store = new SqliteDatabase(db)
      await prepare(store)
      if (path !== IN_MEMORY) store.#seeToTheDisk(openLog(path))
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

  /**
   * From FULL to NORMAL SQLite leaves out one thing: to see that a commit's pages of the log are on the disk. A spent
   * challenge must still be spent after a power cut, so whoever commits waits for `#log` instead.
   */
  #seeToTheDisk(log: WriteAheadLog): void {
    this.#log = log
    this.#db.exec('PRAGMA synchronous = NORMAL')
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

  async snapshot<T>(work: (sql: SqlReader) => Promise<T>): Promise<T> {
    while (this.#busy !== undefined) await this.#busy // and begin at once: others wait for the same
    if (this.#log?.failure !== undefined) throw this.#log.failure
    const result = this.#readAtOnce(work)
    this.#occupy(
      result.then(
        () => {},
        () => {},
      ),
    )
    return await result
  }

  /** A transaction that only reads holds no lock of the write-ahead log, and goes on seeing what it saw first. */
  async #readAtOnce<T>(work: (sql: SqlReader) => Promise<T>): Promise<T> {
    await guard(() => this.#db.exec('BEGIN'))
    try {
      return await work(this.#sql)
    } finally {
      if (this.#db.isOpen && this.#db.isTransaction) this.#db.exec('ROLLBACK')
    }
  }

  async run(sql: string, ...values: readonly SqlValue[]): Promise<number> {
    return await this.transaction((own) => own.run(sql, ...values))
  }

  async get(sql: string, ...values: readonly SqlValue[]): Promise<Row | undefined> {
    await this.#idle()
    return await this.#sql.get(sql, ...values)
  }

  async all(sql: string, ...values: readonly SqlValue[]): Promise<readonly Row[]> {
    await this.#idle()
    return await this.#sql.all(sql, ...values)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    while (this.#isScheduled || this.#busy !== undefined) await (this.#busy ?? turn())
    await Promise.all(this.#telling)
    await this.#log?.close()
    this.#log = undefined
    if (this.#db.isOpen) this.#db.close()
  }

  async #idle(): Promise<void> {
    while (this.#busy !== undefined) await this.#busy
    if (this.#log?.failure !== undefined) throw this.#log.failure
  }

  /** At once, or when it is time: but after all that arrived in this turn of the event loop, which is one group then. */
  #schedule(): void {
    if (this.#isScheduled || this.#busy !== undefined) return
    this.#isScheduled = true
    const begin = (): void => {
      this.#isScheduled = false
      if (this.#busy !== undefined) return // a snapshot came before: its end begins the group
      this.#lastGroupMs = performance.now()
      this.#occupy(this.#commit(this.#waiting.splice(0, MAX_GROUP)))
    }
    const early = this.#lastGroupMs + GROUP_EVERY_MS - performance.now()
    if (early > 0) setTimeout(begin, early)
    else setImmediate(begin)
  }

  /** @param work does not fail */
  #occupy(work: Promise<void>): void {
    this.#busy = work.finally(() => {
      this.#busy = undefined
      if (this.#waiting.length > 0) this.#schedule()
    })
  }

  async #commit(group: readonly WaitingTransaction[]): Promise<void> {
    const tellCallers: (() => void)[] = []
    try {
      if (this.#log?.failure !== undefined) throw this.#log.failure
      await this.#sql.run('BEGIN IMMEDIATE')
      for (const transaction of group) tellCallers.push(await this.#attempt(transaction))
      await this.#sql.run('COMMIT')
    } catch (error) {
      if (this.#db.isOpen && this.#db.isTransaction) this.#db.exec('ROLLBACK')
      for (const { reject } of group) reject(error)
      return
    }
    const told = this.#tell(group, tellCallers).finally(() => this.#telling.delete(told))
    this.#telling.add(told)
  }

  /** When it is on the disk; the next group need not wait for that. */
  async #tell(group: readonly WaitingTransaction[], tellCallers: readonly (() => void)[]): Promise<void> {
    try {
      await this.#log?.durable()
    } catch (error) {
      for (const { reject } of group) reject(error)
      return
    }
    for (const tell of tellCallers) tell()
  }

  /** What fails takes nothing else of its group with it. */
  async #attempt({ work, reject }: WaitingTransaction): Promise<() => void> {
    await this.#sql.run('SAVEPOINT one_of_group')
    try {
      const tell = await work()
      await this.#sql.run('RELEASE one_of_group')
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

async function versionOf(sql: Sql): Promise<number> {
  return integer(await sql.get('PRAGMA user_version'), 'user_version')
}

async function migrate(sql: Sql): Promise<void> {
  const version = await versionOf(sql)
  refuseNewer(version)
  for (const step of SQLITE_STEPS.slice(version)) await step(sql)
  await sql.run(`PRAGMA user_version = ${SCHEMA_VERSION}`)
}
