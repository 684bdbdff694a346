/**
 * PostgreSQL as the verifier's store, for several replicas. Every transaction takes one advisory lock first: decisions
 * are made one after the other, as with SQLite's write lock, whichever replica makes them.
 */
import pg from 'pg'
import { CaissonError, UnavailableError } from '#protocol/errors'
import type { Database, Sql, SqlReader, SqlValue } from './database.ts'
import { integer, type Row } from './row.ts'
import { POSTGRES_STEPS, SCHEMA_VERSION } from './schema.ts'
import { absentStore, refuseNewer, refuseOther } from './schema-version.ts'

/** Names the lock among those of other users of the database; any fixed number does. */
const LOCK = 0x63616973
/** How long a statement may take, milliseconds. */
const STATEMENT_TIMEOUT_MS = 5_000
/** A replica that stopped in the middle of a transaction loses the lock after this long, milliseconds. */
const STALLED_HOLDER_MS = 10_000
/**
 * How long a transaction waits for its turn, milliseconds: longer than a stalled holder keeps the others waiting, and
 * shorter than guests wait for an answer.
 */
const LOCK_TIMEOUT_MS = 20_000
/** Until a connection is there, be it new or given back by a transaction that waited for its turn, milliseconds. */
const CONNECT_TIMEOUT_MS = LOCK_TIMEOUT_MS
/** How much longer than the server's own limit we wait: a dead connection is noticed, a slow statement reported as such. */
const SILENCE_MS = 5_000
const MAX_CONNECTIONS = 8
/** One message, so that a transaction costs one round trip before its first statement. Limits count for each statement. */
const BEGIN = [
  'BEGIN',
  `SET LOCAL statement_timeout = ${LOCK_TIMEOUT_MS}`,
  `SELECT pg_advisory_xact_lock(${LOCK})`,
  `SET LOCAL statement_timeout = ${STATEMENT_TIMEOUT_MS}`,
].join('; ')
const WAITING_BEGIN = { text: BEGIN, query_timeout: LOCK_TIMEOUT_MS + SILENCE_MS }

/** It holds no lock, and whoever reads may be slow with what it read, milliseconds. */
const STALLED_READER_MS = 60_000
const BEGIN_SNAPSHOT = [
  'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY',
  `SET LOCAL idle_in_transaction_session_timeout = ${STALLED_READER_MS}`,
].join('; ')

/** bigint columns hold times and counts, which fit a number. */
pg.types.setTypeParser(pg.types.builtins.INT8, Number)

export class PostgresDatabase implements Database {
  readonly #pool: pg.Pool

  private constructor(pool: pg.Pool) {
    this.#pool = pool
  }

  /**
   * Makes the tables where there are none, and brings older ones to this version.
   *
   * @param url postgresql://user:password@host:port/database
   * @throws UnavailableError ERR_STORE_OPEN, ERR_STORE_VERSION
   */
  static async open(url: string): Promise<PostgresDatabase> {
    return await PostgresDatabase.#connect(url, (store) => store.transaction(migrate))
  }

  /**
   * Opens a store as it is.
   *
   * @param url as for `open`
   * @throws UsageError ERR_STORE_ABSENT
   * @throws UnavailableError ERR_STORE_OPEN, ERR_STORE_VERSION
   */
  static async openExisting(url: string): Promise<PostgresDatabase> {
    return await PostgresDatabase.#connect(url, async (store) => {
      const found = "SELECT CASE WHEN to_regclass('caisson_schema') IS NULL THEN 0 ELSE 1 END AS found"
      if (integer(await store.get(found), 'found') === 0) throw absentStore()
      refuseOther(await versionOf(store))
    })
  }

  static async #connect(url: string, prepare: (store: PostgresDatabase) => Promise<void>): Promise<PostgresDatabase> {
    const pool = new pg.Pool({
      connectionString: url,
      max: MAX_CONNECTIONS,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      statement_timeout: STATEMENT_TIMEOUT_MS,
      query_timeout: STATEMENT_TIMEOUT_MS + SILENCE_MS,
      idle_in_transaction_session_timeout: STALLED_HOLDER_MS,
      keepAlive: true,
    })
    // A connection that breaks, idle or in use, fails the statement that is on it or is replaced when needed next; the
    // event itself would end the process.
    pool.on('error', () => {})
    pool.on('connect', (client) => void client.on('error', () => {}))
    const store = new PostgresDatabase(pool)
    try {
      await prepare(store)
      return store
    } catch (cause) {
      await pool.end()
      if (cause instanceof CaissonError && ['ERR_STORE_ABSENT', 'ERR_STORE_VERSION'].includes(cause.code)) throw cause
      throw new UnavailableError('ERR_STORE_OPEN', 'cannot open the PostgreSQL store', {
        hint: 'Check the address, the name of the database and the password, and that the server runs.',
        cause,
      })
    }
  }

  async transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    return await this.#within(WAITING_BEGIN, work)
  }

  async snapshot<T>(work: (sql: SqlReader) => Promise<T>): Promise<T> {
    return await this.#within({ text: BEGIN_SNAPSHOT }, work)
  }

  async #within<T>(begin: pg.QueryConfig, work: (sql: Sql) => Promise<T>): Promise<T> {
    const client = await guard(() => this.#pool.connect())
    let broken = false
    try {
      const sql = new PostgresStatements(client)
      await guard(() => client.query(begin))
      const result = await work(sql)
      await guard(() => client.query('COMMIT'))
      return result
    } catch (error) {
      await client.query('ROLLBACK').catch(() => {
        broken = true
      })
      throw error
    } finally {
      client.release(broken)
    }
  }

  async run(sql: string, ...values: readonly SqlValue[]): Promise<number> {
    return await new PostgresStatements(this.#pool).run(sql, ...values)
  }

  async get(sql: string, ...values: readonly SqlValue[]): Promise<Row | undefined> {
    return await new PostgresStatements(this.#pool).get(sql, ...values)
  }

  async all(sql: string, ...values: readonly SqlValue[]): Promise<readonly Row[]> {
    return await new PostgresStatements(this.#pool).all(sql, ...values)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end()
  }
}

class PostgresStatements implements Sql {
  readonly #client: Pick<pg.ClientBase, 'query'> | pg.Pool

  constructor(client: pg.ClientBase | pg.Pool) {
    this.#client = client
  }

  async run(sql: string, ...values: readonly SqlValue[]): Promise<number> {
    return (await this.#query(sql, values)).rowCount ?? 0
  }

  async get(sql: string, ...values: readonly SqlValue[]): Promise<Row | undefined> {
    return (await this.#query(sql, values)).rows[0]
  }

  async all(sql: string, ...values: readonly SqlValue[]): Promise<readonly Row[]> {
    return (await this.#query(sql, values)).rows
  }

  #query(sql: string, values: readonly SqlValue[]): Promise<pg.QueryResult<Row>> {
    let index = 0
    const text = sql.replace(/\?/g, () => `$${++index}`)
    const parameters = values.map((value) => (value instanceof Uint8Array ? Buffer.from(value) : value))
    return guard(() => this.#client.query<Row>(text, parameters))
  }
}

async function guard<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
    // 57014: statement_timeout; 55P03: lock_timeout.
    const locked = code === '57014' || code === '55P03'
    throw new UnavailableError(
      locked ? 'ERR_STORE_BUSY' : 'ERR_STORE_FAILED',
      locked ? "the verifier's store is busy" : "the verifier's store failed",
      { cause, hint: locked ? 'Try again.' : 'Check that the PostgreSQL server runs and can be reached.' },
    )
  }
}

async function versionOf(sql: Sql): Promise<number> {
  return integer(await sql.get('SELECT coalesce(max(version), 0) AS version FROM caisson_schema'), 'version')
}

async function migrate(sql: Sql): Promise<void> {
  await sql.run('CREATE TABLE IF NOT EXISTS caisson_schema (version BIGINT NOT NULL)')
  const version = await versionOf(sql)
  refuseNewer(version)
  for (const [from, step] of POSTGRES_STEPS) if (version <= from) await step(sql)
  await sql.run('DELETE FROM caisson_schema')
  await sql.run('INSERT INTO caisson_schema (version) VALUES (?)', SCHEMA_VERSION)
}
