/**
 * Backups of the verifier's store: lines of JSON, the same for SQLite and PostgreSQL, so that one becomes the other.
 * Secrets stay sealed: a backup is of no use without the store's key, and that key is not in it.
 *
 * Line 1 names format and schema, each further line is a row, the last one the SHA-256 of all before it.
 */
import { createHash } from 'node:crypto'
import { fromBase64, toBase64 } from '#protocol/encoding'
import { MalformedError, UsageError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import type { Database, Sql, SqlReader, SqlValue } from './database.ts'
import { integer, type Row, text } from './row.ts'
import { SCHEMA_VERSION } from './schema.ts'

const FORMAT = 'caisson-verifier-backup'
const CODE = 'ERR_BACKUP'
const PAGE = 200
const LARGE_PAGE = 8
/** The largest answer of AMD or Intel that is kept, 12 MiB, in base64, with room for its address. */
export const MAX_BACKUP_LINE: number = 17 * 1024 * 1024

interface BackupTable {
  readonly columns: readonly string[]
  /** Unique, and what rows come ordered by. */
  readonly key: readonly string[]
  /** Rows that are read at once; fewer of those that may be large. */
  readonly page?: number
}

/** Numbers that a database counts itself are left out: the order of the rows tells them. */
export const BACKUP_TABLES: Readonly<Record<string, BackupTable>> = {
  tenants: { columns: ['name', 'created_ms', 'settings'], key: ['name'] },
  data_keys: { columns: ['id', 'wrapped', 'created_ms'], key: ['id'] },
  signing_keys: { columns: ['tenant', 'kind', 'kid', 'created_ms', 'material'], key: ['seq'] },
  spent: { columns: ['id', 'expires_ms'], key: ['id'] },
  attestation_records: {
    columns: [
      ...['tenant', 'id', 'handshake', 'at_ms', 'stage', 'tee', 'verdict', 'code', 'reason', 'hint'],
      ...['details', 'claims'],
    ],
    key: ['seq'],
  },
  resource_versions: {
    columns: [
      ...['tenant', 'path', 'version', 'content', 'size', 'release', 'max_holders', 'not_before_ms', 'not_after_ms'],
      'created_ms',
    ],
    key: ['tenant', 'path', 'version'],
    page: LARGE_PAGE,
  },
  resource_holders: {
    columns: ['tenant', 'path', 'version', 'holder', 'at_ms'],
    key: ['tenant', 'path', 'version', 'holder'],
  },
  reference_documents: {
    columns: ['tenant', 'id', 'document', 'state', 'until_ms', 'created_ms'],
    key: ['tenant', 'id'],
  },
  appraisal_policies: { columns: ['tenant', 'id', 'document', 'created_ms'], key: ['tenant', 'id'] },
  collateral_answers: { columns: ['url', 'body', 'fetched_ms', 'stale_ms'], key: ['url'], page: LARGE_PAGE },
  identity_grants: { columns: ['tenant', 'id', 'names', 'release', 'created_ms'], key: ['tenant', 'id'] },
  tenant_audit_leaves: { columns: ['tenant', 'position', 'leaf'], key: ['tenant', 'position'] },
  tenant_audit_nodes: { columns: ['tenant', 'level', 'position', 'hash'], key: ['tenant', 'level', 'position'] },
}

export interface RestoreResult {
  readonly rows: number
  /** One-time secrets that nobody gets any more: guests may have got them after the backup was made. */
  readonly blocked: number
}

/** Lines without their ends, of one moment: what is written meanwhile is not in them, and need not wait. */
export async function writeBackup(database: Database, write: (line: string) => Promise<void>): Promise<number> {
  return await database.snapshot(async (sql) => {
    const hash = createHash('sha256')
    const emit = async (value: unknown): Promise<void> => {
      const line = JSON.stringify(value)
      hash.update(`${line}\n`)
      await write(line)
    }
    await emit({ format: FORMAT, schema: SCHEMA_VERSION })
    let rows = 0
    for (const [name, table] of Object.entries(BACKUP_TABLES)) {
      for await (const row of rowsOf(sql, name, table)) {
        await emit([name, ...table.columns.map((column) => encode(row[column]))])
        rows++
      }
    }
    await write(JSON.stringify({ sha256: hash.digest('hex') }))
    return rows
  })
}

/** Page by page, each found by the key of the last row before it. */
async function* rowsOf(sql: SqlReader, name: string, { columns, key, page = PAGE }: BackupTable): AsyncIterable<Row> {
  const select = `SELECT ${[...new Set([...columns, ...key])].join(', ')} FROM ${name}`
  const next = `${select} WHERE (${key.join(', ')}) > (${key.map(() => '?').join(', ')})`
  const order = `ORDER BY ${key.join(', ')} LIMIT ${page}`
  let rows = await sql.all(`${select} ${order}`)
  for (;;) {
    yield* rows
    const last = rows.at(-1)
    if (last === undefined || rows.length < page) return
    rows = await sql.all(`${next} ${order}`, ...key.map((column) => keyValue(last, column)))
  }
}

function keyValue(row: Row, column: string): SqlValue {
  return typeof row[column] === 'number' ? integer(row, column) : text(row, column)
}

/**
 * Into an empty store, all or nothing.
 *
 * @param options.keepOneTime release one-time secrets again, although guests may have got them after the backup
 * @throws UsageError ERR_BACKUP_TARGET when the store holds something
 * @throws MalformedError ERR_BACKUP when the backup is cut, changed, or of another schema
 */
export async function restoreBackup(
  database: Database,
  lines: AsyncIterable<string>,
  options: { readonly keepOneTime: boolean },
): Promise<RestoreResult> {
  return await database.transaction(async (sql) => {
    await checkEmpty(sql)
    const hash = createHash('sha256')
    let [count, ended] = [0, false]
    for await (const line of lines) {
      if (ended) throw malformed('goes on after its end')
      if (line.length > MAX_BACKUP_LINE) throw malformed(`has a line of ${line.length} characters`)
      const value = parseBackupLine(line)
      if (value.kind === 'end') {
        if (value.sha256 !== hash.digest('hex')) throw malformed('was changed: its digest is another one')
        ended = true
        continue
      }
      hash.update(`${line}\n`)
      if ((count === 0) !== (value.kind === 'start')) throw malformed('does not begin with its format')
      if (value.kind === 'row') await insert(sql, value.table, value.values)
      count++
    }
    if (!ended) throw malformed('was cut: its end is missing')
    const block = 'UPDATE resource_versions SET max_holders = 0 WHERE max_holders > 0'
    return { rows: count - 1, blocked: options.keepOneTime ? 0 : await sql.run(block) }
  })
}

type BackupLine =
  | { readonly kind: 'start' }
  | { readonly kind: 'end'; readonly sha256: string }
  | { readonly kind: 'row'; readonly table: string; readonly values: readonly SqlValue[] }

/** @throws MalformedError ERR_BACKUP */
export function parseBackupLine(line: string): BackupLine {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (cause) {
    throw malformed('has a line that is no JSON', cause)
  }
  if (Array.isArray(value)) {
    const [name, ...values]: readonly unknown[] = value
    const table = typeof name === 'string' && Object.hasOwn(BACKUP_TABLES, name) ? BACKUP_TABLES[name] : undefined
    if (table === undefined || values.length !== table.columns.length) throw malformed('has a row of no known table')
    return { kind: 'row', table: String(name), values: values.map(decode) }
  }
  const fields = new JsonFields(value, 'backup', CODE)
  if (fields.has('sha256')) {
    fields.only(['sha256'])
    return { kind: 'end', sha256: fields.string('sha256', 64) }
  }
  fields.only(['format', 'schema'])
  fields.oneOf('format', [FORMAT])
  const schema = fields.integer('schema', 1, 1_000_000)
  if (schema !== SCHEMA_VERSION) {
    throw new MalformedError(CODE, `the backup has schema version ${schema}, this release knows ${SCHEMA_VERSION}`, {
      hint: 'Restore it with the release that wrote it, and let this one take over the store.',
    })
  }
  return { kind: 'start' }
}

async function checkEmpty(sql: Sql): Promise<void> {
  for (const table of Object.keys(BACKUP_TABLES)) {
    if (integer(await sql.get(`SELECT count(*) AS n FROM ${table}`), 'n') === 0) continue
    throw new UsageError('ERR_BACKUP_TARGET', 'the store to restore into holds something already', {
      hint: 'Restore into a new file or database, and start the verifier with it.',
    })
  }
}

async function insert(sql: Sql, table: string, values: readonly SqlValue[]): Promise<void> {
  const columns = BACKUP_TABLES[table]?.columns ?? []
  await sql.run(`INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`, ...values)
}

function encode(value: Row[string]): unknown {
  return value instanceof Uint8Array ? { b64: toBase64(value) } : (value ?? null)
}

function decode(value: unknown): SqlValue {
  if (value === null || typeof value === 'string') return value
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value
  const fields = new JsonFields(value, 'backup', CODE)
  fields.only(['b64'])
  return fromBase64(fields.string('b64', MAX_BACKUP_LINE), 'backup')
}

function malformed(problem: string, cause?: unknown): MalformedError {
  return new MalformedError(CODE, `the backup ${problem}`, {
    hint: 'Use another backup; nothing was restored.',
    ...(cause === undefined ? {} : { cause }),
  })
}
