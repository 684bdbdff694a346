import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { AnswerStore } from '#attestation/collateral/answer-store'
import { AttestationLog } from '#attestation/store/attestation-log'
import { AuditLog } from '#attestation/store/audit-log'
import { BACKUP_TABLES, parseBackupLine, restoreBackup, writeBackup } from '#attestation/store/backup'
import type { Database } from '#attestation/store/database'
import { LocalKeyWrapper } from '#attestation/store/key-wrapper'
import { PostgresDatabase } from '#attestation/store/postgres'
import { ResourceStore } from '#attestation/store/resource-store'
import { Sealing } from '#attestation/store/sealing'
import { IN_MEMORY, SqliteDatabase } from '#attestation/store/sqlite'
import { startPostgres } from '../../fixtures/postgres/server.ts'
import { refusesOrKeeps } from '../../unit/parser-property.ts'

const KEY = new LocalKeyWrapper(new Uint8Array(32))
const QUOTA = { maxResources: 1000, maxBytes: 10_000_000 }

async function emptyStore(t: ExecutionContext): Promise<Database> {
  const database = await SqliteDatabase.open(IN_MEMORY)
  t.teardown(() => database[Symbol.asyncDispose]())
  return database
}

async function resourcesOf(database: Database): Promise<ResourceStore> {
  return new ResourceStore({ database, sealing: await Sealing.open(database, KEY, new Date(0)), tenant: 'default' })
}

/** A store with more rows than a page, also of those that a database counts, a one-time secret that one guest has, and one that nobody has. */
async function fill(database: Database): Promise<void> {
  const resources = await resourcesOf(database)
  const audit = new AuditLog(database, 'default')
  const attested = { condition: { kind: 'attested' } } as const
  const put = (path: string, terms: typeof attested & { maxHolders?: number }) =>
    database.transaction(async (sql) => {
      await resources.put(sql, { path, content: Buffer.from(`of ${path}`), terms, at: new Date(7), quota: QUOTA })
      const entry = { at: new Date(7), actor: 'a', action: 'put', subject: path, verdict: 'accepted' } as const
      await audit.add(sql, entry)
    })
  const log = new AttestationLog(database, { tenant: 'default', keep: 1000 })
  const record = { handshake: 'h', at: new Date(7), stage: 'attest', tee: 'tpm', verdict: 'accepted' } as const
  const nothing = { code: undefined, reason: undefined, hint: undefined, checks: [] }
  for (let index = 0; index < 230; index++) {
    await put(`a/b/${index}`, attested)
    await log.add({ ...record, ...nothing, id: `record ${index}`, facts: {} })
  }
  await put('once/a/taken', { ...attested, maxHolders: 1 })
  await put('once/a/free', { ...attested, maxHolders: 1 })
  await hold(database, 'once/a/taken', 'first')
  const answer = { files: [{ name: 'list.crl', bytes: Uint8Array.of(0, 255, 1) }], fetchedAt: new Date(7) }
  await new AnswerStore(database).put({ ...answer, url: 'https://kdsintf.amd.com/x', staleAt: new Date(9) })
}

async function hold(database: Database, path: string, holder: string): Promise<void> {
  const resources = await resourcesOf(database)
  const resource = await resources.find(path)
  if (resource === undefined) throw new Error('no such resource')
  await database.transaction((sql) => resources.hold(sql, resource, holder, new Date(8)))
}

async function backupOf(database: Database): Promise<string[]> {
  const lines: string[] = []
  await writeBackup(database, async (line) => void lines.push(line))
  return lines
}

async function* each(lines: readonly string[]): AsyncIterable<string> {
  yield* lines
}

test('a backup of SQLite becomes a PostgreSQL store, and back again, with the same contents and the same audit tree', async (t) => {
  const first = await emptyStore(t)
  await fill(first)
  const postgres = await PostgresDatabase.open((await startPostgres(t)).url)
  t.teardown(() => postgres[Symbol.asyncDispose]())
  const lines = await backupOf(first)
  t.false(lines.join('\n').includes('of a/b/1'), 'secrets stay sealed')
  t.is((await restoreBackup(postgres, each(lines), { keepOneTime: true })).rows, lines.length - 2)
  t.deepEqual(await backupOf(postgres), lines)
  const second = await emptyStore(t)
  await restoreBackup(second, each(await backupOf(postgres)), { keepOneTime: true })
  t.deepEqual(await backupOf(second), lines)
  t.is(Buffer.from((await (await resourcesOf(second)).find('a/b/77'))?.content ?? []).toString(), 'of a/b/77')
  t.deepEqual(await new AuditLog(second, 'default').tree(), await new AuditLog(first, 'default').tree())
  await new AuditLog(postgres, 'default').add(postgres, {
    ...{ at: new Date(9), actor: 'a', action: 'b', subject: 'goes on', verdict: 'accepted' },
  })
})

test('every column of every table is in a backup, except numbers that a database counts itself', async (t) => {
  const store = await emptyStore(t)
  const tables = await store.all("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
  const inStore: Record<string, readonly string[]> = {}
  for (const { name } of tables) {
    const columns = await store.all(`SELECT name FROM pragma_table_info('${String(name)}')`)
    inStore[String(name)] = columns
      .map((column) => String(column.name))
      .filter((column) => column !== 'seq')
      .toSorted()
  }
  const inBackup = Object.entries(BACKUP_TABLES).map(([name, { columns }]) => [name, columns.toSorted()])
  t.deepEqual(Object.fromEntries(inBackup), inStore)
})

test('one-time secrets are blocked by a restore, since guests may have got them after the backup, unless told otherwise', async (t) => {
  const first = await emptyStore(t)
  await fill(first)
  const lines = await backupOf(first)
  const careful = await emptyStore(t)
  t.is((await restoreBackup(careful, each(lines), { keepOneTime: false })).blocked, 2)
  await t.throwsAsync(hold(careful, 'once/a/free', 'second'), { code: 'ERR_RESOURCE_SPENT' })
  const kept = await emptyStore(t)
  await restoreBackup(kept, each(lines), { keepOneTime: true })
  await t.notThrowsAsync(hold(kept, 'once/a/free', 'second'))
  await t.throwsAsync(hold(kept, 'once/a/taken', 'second'), { code: 'ERR_RESOURCE_SPENT' })
})

test('a backup that was cut, changed, reordered or extended restores nothing', async (t) => {
  const first = await emptyStore(t)
  await fill(first)
  const lines = await backupOf(first)
  const changed: readonly (readonly string[])[] = [
    lines.slice(0, -1),
    lines.slice(1),
    lines.filter((_, index) => index !== 5),
    [...lines, lines[3] ?? ''],
    lines.with(
      6,
      (lines[6] ?? '').replace(/\d/, (digit) => String((Number(digit) + 1) % 10)),
    ),
    [lines[0] ?? '', lines[2] ?? '', lines[1] ?? '', ...lines.slice(3)],
    [],
  ]
  for (const backup of changed) {
    const store = await emptyStore(t)
    await t.throwsAsync(restoreBackup(store, each(backup), { keepOneTime: false }))
    t.is((await store.all('SELECT * FROM resource_versions')).length, 0)
  }
})

test('the largest answer of AMD or Intel that is kept comes back from a backup', async (t) => {
  const first = await emptyStore(t)
  const url = 'https://api.trustedservices.intel.com/sgx/certification/v4/tcb'
  const files = [{ name: 'tcb.json', bytes: new Uint8Array(randomBytes(9_400_000)) }]
  await new AnswerStore(first).put({ url, files, fetchedAt: new Date(7), staleAt: new Date(9) })
  const second = await emptyStore(t)
  await restoreBackup(second, each(await backupOf(first)), { keepOneTime: false })
  const [was, is] = [await new AnswerStore(first).find(url), await new AnswerStore(second).find(url)]
  t.true(Buffer.from(was?.files[0]?.bytes ?? []).equals(is?.files[0]?.bytes ?? Buffer.of(0)))
  t.like(is, { fetchedAt: new Date(7), staleAt: new Date(9) })
})

test('a store is used while it is backed up, and the backup is of one moment', async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'caisson-backup-')), 'verifier.db')
  t.teardown(() => rmSync(dirname(path), { recursive: true }))
  const postgres = (await startPostgres(t)).url
  for (const open of [() => SqliteDatabase.open(path), () => PostgresDatabase.open(postgres)]) {
    const [serving, saving] = [await open(), await open()]
    await fill(serving)
    const before = await backupOf(serving)
    const lines: string[] = []
    let mine: Promise<number> | undefined
    await writeBackup(saving, async (line) => {
      lines.push(line)
      if (lines.length !== 100) return
      const resources = await resourcesOf(serving)
      await serving.transaction(async (sql) => {
        await resources.remove(sql, 'a/b/229')
        await sql.run("INSERT INTO spent (id, expires_ms) VALUES ('meanwhile', 1)")
      })
      mine = saving.run("INSERT INTO spent (id, expires_ms) VALUES ('of the same process', 1)")
    })
    await mine
    t.deepEqual(lines, before)
    const after = (await serving.all('SELECT id FROM spent ORDER BY id')).map(({ id }) => id)
    t.deepEqual(after, ['meanwhile', 'of the same process'])
    await serving[Symbol.asyncDispose]()
    await saving[Symbol.asyncDispose]()
  }
})

test('a store that holds something is not restored into', async (t) => {
  const store = await emptyStore(t)
  await fill(store)
  const lines = await backupOf(store)
  await t.throwsAsync(restoreBackup(store, each(lines), { keepOneTime: false }), { code: 'ERR_BACKUP_TARGET' })
})

test('any line of a backup is a row of a known table, its start or its end, or is refused', (t) => {
  const line = fc.oneof(
    fc.json(),
    fc.string(),
    fc.array(fc.jsonValue({ maxDepth: 1 }), { maxLength: 4 }).map((values) => JSON.stringify(['tenants', ...values])),
    fc.constantFrom(
      '{"format":"caisson-verifier-backup","schema":3}',
      '{"sha256":"x"}',
      '{"format":"caisson-verifier-backup","schema":9}',
    ),
  )
  refusesOrKeeps(t, line, parseBackupLine, (value) => ['start', 'end', 'row'].includes(value.kind))
})
