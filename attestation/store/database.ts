/**
 * The verifier's store as its parts see it: SQL that SQLite and PostgreSQL both understand, with `?` for values.
 *
 * Single use (of challenges, of one-time secrets) and the audit tree are decided under the store's one write lock, which
 * every transaction holds from its first statement; so nothing that decides is kept in a process.
 */
import type { Row } from './row.ts'

export type SqlValue = string | number | Uint8Array | null

export interface SqlReader {
  get(sql: string, ...values: readonly SqlValue[]): Promise<Row | undefined>
  all(sql: string, ...values: readonly SqlValue[]): Promise<readonly Row[]>
}

export interface Sql extends SqlReader {
  /** Rows changed. */
  run(sql: string, ...values: readonly SqlValue[]): Promise<number>
}

/**
 * Every method throws UnavailableError: ERR_STORE_BUSY when another process held the lock too long, ERR_STORE_FAILED
 * otherwise. What is read outside of a transaction has been committed.
 */
export interface Database extends Sql, AsyncDisposable {
  /**
   * Runs `work` with the write lock held; all of it happens or nothing does. Inside, only the given `Sql` may be used:
   * the database itself waits for the transaction to end.
   */
  transaction<T>(work: (sql: Sql) => Promise<T>): Promise<T>

  /**
   * Runs `work`, which sees the store as it was when it read first, however long it takes. Other processes write
   * meanwhile; with SQLite, what this database is asked for waits. Inside, only the given `SqlReader` may be used.
   */
  snapshot<T>(work: (sql: SqlReader) => Promise<T>): Promise<T>
}

/** The tenant of a store that serves one. */
export const DEFAULT_TENANT = 'default'
