import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import test from 'ava'
import fc from 'fast-check'
import { leafHash, verifyInclusion } from '#attestation/audit/merkle-tree'
import { encodeAuditCheckpoint, parseAuditCheckpoint, verifyAuditLog } from '#attestation/audit/verify-log'
import { AuditLog } from '#attestation/verifier/audit-log'
import { Database } from '#attestation/verifier/database'
import { startSite } from './site.ts'

const OLD_SCHEMA = `
  CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, verdict TEXT NOT NULL, correlation TEXT
  ) STRICT;
  INSERT INTO audit (at_ms, actor, action, subject, verdict, correlation) VALUES
    (1, 'admin a', 'resource.put', 'a/b/c', 'accepted', NULL), (2, 'guest g', 'attest', 'doc', 'refused', 'id');
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
  const { size, root } = await source.tree()
  const [leaf = ''] = await source.leaves(4, 1)
  const proof = (await admin.proveAuditEntry(4, size)).map((hash) => Buffer.from(String(hash), 'hex'))
  const claim = { leaf: leafHash(Buffer.from(leaf)), index: 4, size, root: Buffer.from(root, 'hex'), proof }
  t.true(verifyInclusion(claim))
  t.false(verifyInclusion({ ...claim, index: 3 }))
})

test('an operator who changes, swaps or cuts audit entries in the store is found out, also when all hashes are made anew', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-audit-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const pristine = join(directory, 'pristine.db')
  const entry = (subject: string) =>
    ({ at: new Date(0), actor: 'admin a', action: 'resource.put', subject, verdict: 'accepted' }) as const
  using database = Database.open(pristine)
  const log = new AuditLog(database)
  for (let index = 0; index < 7; index++) database.transaction(() => log.add(entry(`a/b/${index}`)))
  const checkpoint = log.tree()
  database.execute('PRAGMA wal_checkpoint(TRUNCATE)')

  const attempt = async (name: string, tamper: (raw: DatabaseSync) => void): Promise<unknown> => {
    const path = join(directory, `${name}.db`)
    writeFileSync(path, readFileSync(pristine))
    const raw = new DatabaseSync(path)
    tamper(raw)
    raw.close()
    using store = Database.open(path)
    const audit = new AuditLog(store)
    return await verifyAuditLog(
      {
        tree: async () => audit.tree(),
        leaves: async (from, limit) => audit.leaves(from, limit),
        proveConsistency: async (older, newer) => audit.proveConsistency(older, newer),
      },
      checkpoint,
    )
  }
  /** The strongest operator: builds a log without contradictions that merely says something else. */
  const rebuild = (leaves: (all: string[]) => string[]) => (raw: DatabaseSync) => {
    const all = raw.prepare('SELECT leaf FROM audit_leaves ORDER BY position').all()
    raw.exec('DELETE FROM audit_leaves; DELETE FROM audit_nodes; DROP TABLE audit_leaves; DROP TABLE audit_nodes')
    raw.exec(OLD_SCHEMA.replace(/INSERT[^;]*;/, ''))
    const insert = raw.prepare(
      "INSERT INTO audit (at_ms, actor, action, subject, verdict) VALUES (0, 'admin a', 'resource.put', ?, 'accepted')",
    )
    for (const leaf of leaves(all.map((row) => String(row.leaf)))) insert.run(String(JSON.parse(leaf).subject))
  }
  t.deepEqual(
    await attempt(
      'same',
      rebuild((all) => all),
    ),
    checkpoint,
  )
  const changed = { code: 'ERR_AUDIT_CHANGED' }
  await t.throwsAsync(
    attempt('leaf', (raw) => raw.exec(`UPDATE audit_leaves SET leaf = replace(leaf, 'put', 'get') WHERE position = 2`)),
    changed,
  )
  await t.throwsAsync(
    attempt(
      'swap',
      rebuild(([a = '', b = '', ...rest]) => [b, a, ...rest]),
    ),
    changed,
  )
  await t.throwsAsync(
    attempt(
      'replace',
      rebuild((all) => all.with(6, all[0] ?? '')),
    ),
    changed,
  )
  await t.throwsAsync(
    attempt(
      'cut',
      rebuild((all) => all.slice(0, 6)),
    ),
    { code: 'ERR_AUDIT_CUT' },
  )
  await t.throwsAsync(
    attempt(
      'cut-grown',
      rebuild((all) => [...all.slice(1), '{"subject":"x"}', '{"subject":"y"}']),
    ),
    changed,
  )
})

test('the entries of a store of the first release become the first leaves, in their order', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-audit-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'old.db')
  const raw = new DatabaseSync(path)
  raw.exec(OLD_SCHEMA)
  raw.close()
  using database = Database.open(path)
  const log = new AuditLog(database)
  t.is(log.tree().size, 2)
  t.like(log.list(5)[0], { actor: 'guest g', action: 'attest', correlation: 'id', verdict: 'refused', at: new Date(2) })
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
