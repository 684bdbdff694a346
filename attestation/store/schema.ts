/** The tables of the verifier's store, and how older stores come to them. Both databases have the same tables. */
import { appendLeaf, leafText } from './audit-log.ts'
import { DEFAULT_TENANT, type Sql } from './database.ts'
import { blob, integer, optionalText, text } from './row.ts'
import { markPlain } from './sealing.ts'

export const SCHEMA_VERSION = 7

interface Dialect {
  readonly bytes: string
  readonly integer: string
  readonly serial: string
  /** After the closing parenthesis. */
  readonly table: string
}

const SQLITE: Dialect = {
  bytes: 'BLOB',
  integer: 'INTEGER',
  serial: 'INTEGER PRIMARY KEY AUTOINCREMENT',
  table: 'STRICT',
}
const POSTGRES: Dialect = { bytes: 'BYTEA', integer: 'BIGINT', serial: 'BIGSERIAL PRIMARY KEY', table: '' }

/**
 * `tenants`: who uses the store. `data_keys`: keys that seal secret columns, wrapped by the key from outside. Secret
 * columns are `signing_keys.material` and `resource_versions.content`. `resource_versions.max_holders`: how many guests may
 * get it, null is no limit; `resource_holders` are those that did.
 */
function tables({ bytes, integer, serial, table }: Dialect): readonly string[] {
  return [
    `CREATE TABLE tenants (name TEXT PRIMARY KEY, created_ms ${integer} NOT NULL, settings TEXT NOT NULL) ${table}`,
    `CREATE TABLE data_keys (id TEXT PRIMARY KEY, wrapped ${bytes} NOT NULL, created_ms ${integer} NOT NULL) ${table}`,
    `CREATE TABLE signing_keys (
       seq ${serial}, tenant TEXT NOT NULL, kind TEXT NOT NULL, kid TEXT NOT NULL, created_ms ${integer} NOT NULL,
       material ${bytes} NOT NULL, UNIQUE (tenant, kind, kid)
     ) ${table}`,
    `CREATE TABLE spent (id TEXT PRIMARY KEY, expires_ms ${integer} NOT NULL) ${table}`,
    'CREATE INDEX spent_by_time ON spent (expires_ms)',
    `CREATE TABLE attestation_records (
       seq ${serial}, tenant TEXT NOT NULL, id TEXT NOT NULL UNIQUE, handshake TEXT, at_ms ${integer} NOT NULL,
       stage TEXT NOT NULL, tee TEXT NOT NULL, verdict TEXT NOT NULL, code TEXT, reason TEXT, hint TEXT,
       details TEXT NOT NULL, claims TEXT
     ) ${table}`,
    'CREATE INDEX records_by_handshake ON attestation_records (tenant, handshake)',
    `CREATE TABLE resource_versions (
       tenant TEXT NOT NULL, path TEXT NOT NULL, version ${integer} NOT NULL, content ${bytes} NOT NULL,
       size ${integer} NOT NULL, release TEXT NOT NULL, max_holders ${integer}, not_before_ms ${integer},
       not_after_ms ${integer}, created_ms ${integer} NOT NULL, PRIMARY KEY (tenant, path, version)
     ) ${table}`,
    `CREATE TABLE resource_holders (
       tenant TEXT NOT NULL, path TEXT NOT NULL, version ${integer} NOT NULL, holder TEXT NOT NULL,
       at_ms ${integer} NOT NULL, PRIMARY KEY (tenant, path, version, holder)
     ) ${table}`,
    `CREATE TABLE reference_documents (
       tenant TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, state TEXT NOT NULL, until_ms ${integer},
       created_ms ${integer} NOT NULL, PRIMARY KEY (tenant, id)
     ) ${table}`,
    `CREATE TABLE tenant_audit_leaves (
       tenant TEXT NOT NULL, position ${integer} NOT NULL, leaf TEXT NOT NULL, PRIMARY KEY (tenant, position)
     ) ${table}`,
    `CREATE TABLE tenant_audit_nodes (
       tenant TEXT NOT NULL, level ${integer} NOT NULL, position ${integer} NOT NULL, hash ${bytes} NOT NULL,
       PRIMARY KEY (tenant, level, position)
     ) ${table}`,
  ]
}

/** The tables of the first release, which knew one tenant and sealed nothing. */
const FIRST_TABLES: readonly string[] = [
  `CREATE TABLE keys (
     kid TEXT PRIMARY KEY, kind TEXT NOT NULL, created_ms INTEGER NOT NULL, material TEXT NOT NULL
   ) STRICT`,
  'CREATE TABLE spent_challenges (id TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID',
  `CREATE TABLE attestations (
     seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, handshake TEXT, at_ms INTEGER NOT NULL,
     stage TEXT NOT NULL, tee TEXT NOT NULL, verdict TEXT NOT NULL, code TEXT, reason TEXT, hint TEXT,
     details TEXT NOT NULL, claims TEXT
   ) STRICT`,
  `CREATE TABLE resources (
     path TEXT PRIMARY KEY, content BLOB NOT NULL, release TEXT NOT NULL, version INTEGER NOT NULL,
     updated_ms INTEGER NOT NULL
   ) STRICT`,
  'CREATE TABLE reference_values (id TEXT PRIMARY KEY, document TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT',
  `CREATE TABLE audit (
     seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
     subject TEXT NOT NULL, verdict TEXT NOT NULL, correlation TEXT
   ) STRICT`,
]

/** Between the first and the third schema the audit log became a tree; nothing else changed. */
const AUDIT_TREE: readonly string[] = [
  'CREATE TABLE audit_leaves (position INTEGER PRIMARY KEY, leaf TEXT NOT NULL) STRICT',
  `CREATE TABLE audit_nodes (
     level INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (level, position)
   ) STRICT, WITHOUT ROWID`,
]

/**
 * Fourth schema. `appraisal_policies`: what tenants demand of evidence. `collateral_answers`: what makers of processors
 * answered, the same for all tenants; `body` is the files that were read out of an answer.
 */
function policyTables({ bytes, integer, table }: Dialect): readonly string[] {
  return [
    `CREATE TABLE appraisal_policies (
       tenant TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, created_ms ${integer} NOT NULL,
       PRIMARY KEY (tenant, id)
     ) ${table}`,
    `CREATE TABLE collateral_answers (
       url TEXT PRIMARY KEY, body ${bytes} NOT NULL, fetched_ms ${integer} NOT NULL, stale_ms ${integer} NOT NULL
     ) ${table}`,
    'CREATE INDEX collateral_by_age ON collateral_answers (fetched_ms)',
  ]
}

/** Fifth schema. `identity_grants`: what names guests may have in certificates; `names` and `release` are JSON. */
function identityTables({ integer, table }: Dialect): readonly string[] {
  return [
    `CREATE TABLE identity_grants (
       tenant TEXT NOT NULL, id TEXT NOT NULL, names TEXT NOT NULL, release TEXT NOT NULL,
       created_ms ${integer} NOT NULL, PRIMARY KEY (tenant, id)
     ) ${table}`,
  ]
}

/** Sixth schema. Windows of `attestation-log.ts`, word for word: what is too old in one is found without the others. */
const RECORD_WINDOWS: readonly string[] = [
  `CREATE INDEX records_of_strangers ON attestation_records (tenant, seq) WHERE stage = 'auth' OR handshake IS NULL`,
  `CREATE INDEX records_about_guests ON attestation_records (tenant, seq)
     WHERE stage NOT IN ('auth', 'guest') AND handshake IS NOT NULL`,
  `CREATE INDEX records_by_guests ON attestation_records (tenant, seq) WHERE stage = 'guest' AND handshake IS NOT NULL`,
]

/** Seventh schema. What guests told in vain has left the window of what the verifier decided about them. */
const REFUSED_REASONS: readonly string[] = [
  'DROP INDEX records_about_guests',
  `CREATE INDEX records_about_guests ON attestation_records (tenant, seq)
     WHERE stage NOT IN ('auth', 'guest', 'reason') AND handshake IS NOT NULL`,
  `CREATE INDEX records_of_refused_reasons ON attestation_records (tenant, seq)
     WHERE stage = 'reason' AND handshake IS NOT NULL`,
]

type Step = (sql: Sql) => Promise<void>

/** Step n brings a file from version n to n + 1. Steps are never edited after a release, only added. */
export const SQLITE_STEPS: readonly Step[] = [
  (sql) => runAll(sql, FIRST_TABLES),
  (sql) => runAll(sql, AUDIT_TREE),
  async (sql) => {
    await runAll(sql, tables(SQLITE))
    await moveToTenants(sql)
    for (const name of [
      'keys',
      'spent_challenges',
      'attestations',
      'resources',
      'reference_values',
      'audit',
      'audit_leaves',
      'audit_nodes',
    ]) {
      await sql.run(`DROP TABLE IF EXISTS ${name}`)
    }
  },
  (sql) => runAll(sql, policyTables(SQLITE)),
  (sql) => runAll(sql, identityTables(SQLITE)),
  (sql) => runAll(sql, RECORD_WINDOWS),
  (sql) => runAll(sql, REFUSED_REASONS),
]

/** From which version on a step is needed, and the step. PostgreSQL began with the third schema. */
export const POSTGRES_STEPS: readonly (readonly [number, Step])[] = [
  [0, (sql) => runAll(sql, tables(POSTGRES))],
  [3, (sql) => runAll(sql, policyTables(POSTGRES))],
  [4, (sql) => runAll(sql, identityTables(POSTGRES))],
  [5, (sql) => runAll(sql, RECORD_WINDOWS)],
  [6, (sql) => runAll(sql, REFUSED_REASONS)],
]

async function runAll(sql: Sql, statements: readonly string[]): Promise<void> {
  for (const statement of statements) await sql.run(statement)
}

/** What a store without tenants held becomes the default tenant's. Secrets are marked, to be sealed when it is opened. */
async function moveToTenants(sql: Sql): Promise<void> {
  const tenant = DEFAULT_TENANT
  for (const row of await sql.all('SELECT * FROM keys ORDER BY created_ms')) {
    const columns = [tenant, text(row, 'kind'), text(row, 'kid'), integer(row, 'created_ms')]
    const material = markPlain(Buffer.from(text(row, 'material')))
    const insert = 'INSERT INTO signing_keys (tenant, kind, kid, created_ms, material) VALUES (?, ?, ?, ?, ?)'
    await sql.run(insert, ...columns, material)
  }
  await sql.run('INSERT INTO spent SELECT id, expires_ms FROM spent_challenges')
  await sql.run(
    `INSERT INTO attestation_records
       (tenant, id, handshake, at_ms, stage, tee, verdict, code, reason, hint, details, claims)
     SELECT ?, id, handshake, at_ms, stage, tee, verdict, code, reason, hint, details, claims FROM attestations ORDER BY seq`,
    tenant,
  )
  for (const row of await sql.all('SELECT * FROM resources')) {
    const content = blob(row, 'content')
    const columns = [text(row, 'path'), integer(row, 'version'), markPlain(content), content.byteLength] as const
    const insert = `INSERT INTO resource_versions (tenant, path, version, content, size, release, created_ms)
                    VALUES (?, ?, ?, ?, ?, ?, ?)`
    await sql.run(insert, tenant, ...columns, text(row, 'release'), integer(row, 'updated_ms'))
  }
  await sql.run(
    `INSERT INTO reference_documents (tenant, id, document, state, created_ms)
     SELECT ?, id, document, 'active', created_ms FROM reference_values`,
    tenant,
  )
  const leaves = await sql.all('SELECT leaf FROM audit_leaves ORDER BY position')
  const older = leaves.length > 0 ? [] : await sql.all('SELECT * FROM audit ORDER BY seq')
  for (const row of leaves) await appendLeaf(sql, tenant, text(row, 'leaf'))
  for (const row of older) {
    const at = new Date(integer(row, 'at_ms'))
    const verdict = text(row, 'verdict') === 'accepted' ? 'accepted' : 'refused'
    const [actor, action, subject] = [text(row, 'actor'), text(row, 'action'), text(row, 'subject')]
    const correlation = optionalText(row, 'correlation')
    await appendLeaf(sql, tenant, leafText({ at, actor, action, subject, verdict, correlation }))
  }
}
