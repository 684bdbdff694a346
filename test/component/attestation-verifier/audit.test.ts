import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import test from 'ava'
import fc from 'fast-check'
import { verifyAuditEntry } from '#attestation/audit/verify-entry'
import { encodeAuditCheckpoint, parseAuditCheckpoint, verifyAuditLog } from '#attestation/audit/verify-log'
import { AuditLog, appendLeaf } from '#attestation/store/audit-log'
import type { Database } from '#attestation/store/database'
import { IN_MEMORY, SqliteDatabase } from '#attestation/store/sqlite'
import { startSite } from './site.ts'

/** As the first release made it, with an entry of each kind. */
const OLD_STORE = `
  CREATE TABLE keys (
    kid TEXT PRIMARY KEY, kind TEXT NOT NULL, created_ms INTEGER NOT NULL, material TEXT NOT NULL
  ) STRICT;
  CREATE TABLE spent_challenges (id TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE attestations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, handshake TEXT, at_ms INTEGER NOT NULL,
    stage TEXT NOT NULL, tee TEXT NOT NULL, verdict TEXT NOT NULL, code TEXT, reason TEXT, hint TEXT,
    details TEXT NOT NULL, claims TEXT
  ) STRICT;
  CREATE TABLE resources (
    path TEXT PRIMARY KEY, content BLOB NOT NULL, release TEXT NOT NULL, version INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE reference_values (id TEXT PRIMARY KEY, document TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT;
  CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, verdict TEXT NOT NULL, correlation TEXT
  ) STRICT;
  INSERT INTO audit (at_ms, actor, action, subject, verdict, correlation) VALUES
    (1, 'admin a', 'resource.put', 'a/b/c', 'accepted', NULL), (2, 'guest g', 'attest', 'doc', 'refused', 'id');
  INSERT INTO resources VALUES ('a/b/c', x'006100', '{"kind":"attested"}', 4, 9);
  INSERT INTO reference_values VALUES ('doc', '{"id":"doc"}', 3);
  PRAGMA user_version = 1;
`

test('an audit log that only grew is verified from one checkpoint to the next', async (t) => {
  const { admin } = await startSite(t)
  const empty = await verifyAuditLog(admin.auditSource(), undefined)
  t.is(empty.size, 0)
  for (let index = 0; index < 9; index++) await admin.putResource(`a/b/c${index}`, Buffer.from('x'))
  const nine = await verifyAuditLog(admin.auditSource(), empty)
  t.is(nine.size, 9)
  for (let index = 0; index < 4; index++) await admin.removeResource(`a/b/c${index}`)
  const seen: string[] = []
  const thirteen = await verifyAuditLog(admin.auditSource(), nine, (entry) => seen.push(JSON.parse(entry).action))
  t.is(thirteen.size, 13)
  t.deepEqual(seen, [...Array(9).fill('resource.put'), ...Array(4).fill('resource.remove')])
  t.deepEqual(await verifyAuditLog(admin.auditSource(), thirteen), thirteen)
})

test('one entry is proved to be in the log without reading the others', async (t) => {
  const { admin } = await startSite(t)
  for (let index = 0; index < 6; index++) await admin.putResource(`a/b/c${index}`, Buffer.from('x'))
  const source = admin.auditSource()
  const { entry, tree } = await verifyAuditEntry(source, 4)
  t.like(JSON.parse(entry), { action: 'resource.put', subject: 'a/b/c4' })
  t.is(tree.size, 6)
  await admin.removeResource('a/b/c4')
  t.deepEqual(await verifyAuditEntry(source, 4, tree), { entry, tree }, 'what came later does not matter')
  await t.throwsAsync(verifyAuditEntry(source, 6, tree), { code: 'ERR_AUDIT_RANGE' })
  const lying = { ...source, leaves: () => source.leaves(3, 1) }
  await t.throwsAsync(verifyAuditEntry(lying, 4, tree), { code: 'ERR_AUDIT_CHANGED' })
  const silent = { ...source, leaves: async () => [] }
  await t.throwsAsync(verifyAuditEntry(silent, 4, tree), { code: 'ERR_AUDIT_CHANGED' })
})

test('an operator who changes, swaps or cuts audit entries in the store is found out, also when all hashes are made anew', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-audit-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const entry = (subject: string) =>
    ({ at: new Date(0), actor: 'admin a', action: 'resource.put', subject, verdict: 'accepted' }) as const
  const attempt = async (tamper: (store: Database) => Promise<unknown>): Promise<boolean> => {
    await using store = await SqliteDatabase.open(IN_MEMORY)
    const audit = new AuditLog(store, 'default')
    for (let index = 0; index < 7; index++) await store.transaction((sql) => audit.add(sql, entry(`a/b/${index}`)))
    const checkpoint = await audit.tree()
    await tamper(store)
    const source = {
      tree: () => audit.tree(),
      leaves: (from: number, limit: number) => audit.leaves(from, limit),
      proveConsistency: (older: number, newer: number) => audit.proveConsistency(older, newer),
    }
    await verifyAuditLog(source, checkpoint)
    return true
  }
  /** The strongest operator: builds a log without contradictions that merely says something else. */
  const rebuild = (leaves: (all: string[]) => string[]) => async (store: Database) => {
    const rows = await store.all('SELECT leaf FROM tenant_audit_leaves ORDER BY position')
    await store.transaction(async (sql) => {
      await sql.run('DELETE FROM tenant_audit_leaves')
      await sql.run('DELETE FROM tenant_audit_nodes')
      for (const leaf of leaves(rows.map((row) => String(row.leaf)))) await appendLeaf(sql, 'default', leaf)
    })
  }
  t.true(await attempt(rebuild((all) => all)))
  const change = "UPDATE tenant_audit_leaves SET leaf = replace(leaf, 'put', 'get') WHERE position = 2"
  const changes = [
    (store: Database) => store.run(change),
    rebuild(([first = '', second = '', ...rest]) => [second, first, ...rest]),
    rebuild((all) => all.with(6, all[0] ?? '')),
    rebuild((all) => [...all.slice(1), '{"subject":"x"}', '{"subject":"y"}']),
  ]
  for (const tamper of changes) await t.throwsAsync(attempt(tamper), { code: 'ERR_AUDIT_CHANGED' })
  await t.throwsAsync(attempt(rebuild((all) => all.slice(0, 6))), { code: 'ERR_AUDIT_CUT' })
})

test('a store of the first release becomes the default tenant’s, its secrets sealed and its audit entries in order', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-audit-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'old.db')
  const raw = new DatabaseSync(path)
  raw.exec(OLD_STORE)
  raw.close()
  const { admin } = await startSite(t, { storePath: path })
  t.like((await admin.listResources())[0], { path: 'a/b/c', version: 4, sizeBytes: 3 })
  t.like((await admin.listReferences())[0], { id: 'doc', state: 'active' })
  t.is((await verifyAuditLog(admin.auditSource(), undefined)).size, 2)
  t.like((await admin.listAudit())[0], { actor: 'guest g', action: 'attest', correlation: 'id', at: new Date(2) })
  await using database = await SqliteDatabase.open(path)
  const row = await database.get('SELECT content FROM resource_versions')
  t.is(row?.content instanceof Uint8Array ? row.content[0] : undefined, 1, 'sealed')
})

test('a checkpoint reads back as it was written, and nothing else is taken for one', (t) => {
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.uint8Array({ minLength: 32, maxLength: 32 }), (size, root) => {
      const checkpoint = { size, root: Buffer.from(root).toString('hex') }
      t.deepEqual(parseAuditCheckpoint(encodeAuditCheckpoint(checkpoint)), checkpoint)
    }),
  )
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      t.throws(() => parseAuditCheckpoint(text), { code: 'ERR_AUDIT_CHECKPOINT' })
    }),
  )
})
