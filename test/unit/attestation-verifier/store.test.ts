import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import test, { type ExecutionContext } from 'ava'
import { AttestationLog } from '#attestation/verifier/attestation-log'
import { Database } from '#attestation/verifier/database'
import { KeyRing } from '#attestation/verifier/key-ring'
import { parseReferenceId, ReferenceStore } from '#attestation/verifier/reference-store'
import { parseResourcePath, ResourceStore } from '#attestation/verifier/resource-store'
import { SpentChallenges } from '#attestation/verifier/spent-challenges'

function storePath(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-store-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return join(directory, 'verifier.db')
}

function openStore(t: ExecutionContext, path = storePath(t)): Database {
  const database = Database.open(path)
  t.teardown(() => database[Symbol.dispose]())
  return database
}

test('the store and its side files are readable by their owner alone', (t) => {
  const path = storePath(t)
  openStore(t, path).run('DELETE FROM keys')
  for (const suffix of ['', '-wal', '-shm']) t.is(statSync(path + suffix).mode & 0o777, 0o600, suffix)
})

test('a store that a newer release wrote is refused, not read as an old one', (t) => {
  const path = storePath(t)
  openStore(t, path)
  const raw = new DatabaseSync(path)
  raw.exec('PRAGMA user_version = 99')
  raw.close()
  t.throws(() => Database.open(path), { code: 'ERR_STORE_VERSION' })
})

test('a store in a directory that does not exist is refused with a hint', (t) => {
  const error = t.throws(() => Database.open('/nonexistent/verifier.db'), { code: 'ERR_STORE_OPEN' })
  t.true(error !== undefined && 'hint' in error)
})

test('a file that is no database is refused', (t) => {
  t.throws(() => Database.open(import.meta.filename.replace('store.test.ts', '')), { code: 'ERR_STORE_OPEN' })
})

test('a transaction that throws leaves nothing behind', (t) => {
  const database = openStore(t)
  const resources = new ResourceStore(database)
  t.throws(() =>
    database.transaction(() => {
      resources.put('a/b/c', Uint8Array.of(1), { kind: 'attested' }, new Date())
      throw new Error('afterwards')
    }),
  )
  t.is(resources.find('a/b/c'), undefined)
})

test('a challenge is spent once, by whichever process comes first', (t) => {
  const path = storePath(t)
  const [first, second] = [openStore(t, path), openStore(t, path)]
  const now = new Date(1_000_000)
  first.transaction(() => new SpentChallenges(first).spend('c1', 2_000_000, now))
  t.true(new SpentChallenges(second).isSpent('c1'))
  t.throws(() => second.transaction(() => new SpentChallenges(second).spend('c1', 2_000_000, now)), {
    code: 'ERR_CHALLENGE_SPENT',
  })
})

test('spent challenges are forgotten when their sessions have expired anyway', (t) => {
  const database = openStore(t)
  const spent = new SpentChallenges(database)
  spent.spend('old', 1_000, new Date(0))
  spent.spend('new', 9_000, new Date(5_000))
  t.false(spent.isSpent('old'))
  t.true(spent.isSpent('new'))
})

function ring(database: Database, clock: { now: number }): KeyRing {
  let count = 0
  return new KeyRing({
    database,
    kind: 'test',
    rotateAfterMs: 100,
    keepMs: 50,
    now: () => new Date(clock.now),
    generate: () => ({ kid: `${clock.now}-${count++}`, material: 'secret' }),
  })
}

test('a key is used until it is due, and stays readable until nothing made with it can be valid', (t) => {
  const clock = { now: 1_000 }
  const keys = ring(openStore(t), clock)
  const first = keys.current()
  clock.now = 1_099
  t.is(keys.current().kid, first.kid)
  clock.now = 1_100
  const second = keys.current()
  t.not(second.kid, first.kid)
  t.deepEqual(
    keys.all().map(({ kid }) => kid),
    [second.kid, first.kid],
  )
  clock.now = 1_150
  t.truthy(keys.find(first.kid))
  clock.now = 1_151
  t.is(keys.find(first.kid), undefined)
})

test('two processes share one current key, also right after a rotation', (t) => {
  const path = storePath(t)
  const clock = { now: 1_000 }
  const [a, b] = [ring(openStore(t, path), clock), ring(openStore(t, path), clock)]
  t.is(a.current().kid, b.current().kid)
  clock.now = 1_001
  const rotated = a.rotate()
  t.is(b.current().kid, rotated.kid)
})

for (const path of ['default/tls/key', 'a/b/c', '_x/-y/z.1', 'A-1/b_2/c..d']) {
  test(`${path} names a resource`, (t) => t.is(parseResourcePath(path.split('/')), path))
}

for (const path of [
  'a/b',
  'a/b/c/d',
  '',
  'a//c',
  '../b/c',
  './b/c',
  'a/b/.c',
  'a/b/%2e',
  'a/b/c ',
  'ä/b/c',
  `a/b/${'c'.repeat(129)}`,
]) {
  test(`${JSON.stringify(path.slice(0, 20))} (${path.length}) names no resource`, (t) => {
    t.throws(() => parseResourcePath(path.split('/')), { code: 'ERR_RESOURCE_NAME' })
  })
}

test('replacing a resource counts its version up and changes its condition', (t) => {
  const resources = new ResourceStore(openStore(t))
  resources.put('a/b/c', Uint8Array.of(1), { kind: 'attested' }, new Date(1))
  const images = { kind: 'images', manifests: [`sha256:${'0'.repeat(64)}`] } as const
  resources.put('a/b/c', Uint8Array.of(2, 3), images, new Date(2))
  t.deepEqual(resources.list(), [{ path: 'a/b/c', sizeBytes: 2, release: images, version: 2, updatedAt: new Date(2) }])
  t.deepEqual([...(resources.find('a/b/c')?.content ?? [])], [2, 3])
  t.true(resources.remove('a/b/c'))
  t.false(resources.remove('a/b/c'))
})

test('a resource larger than the limit is refused', (t) => {
  const resources = new ResourceStore(openStore(t))
  t.throws(() => resources.put('a/b/c', new Uint8Array(1024 * 1024 + 1), { kind: 'attested' }, new Date()), {
    code: 'ERR_RESOURCE_LIMIT',
  })
})

test('reference values are found by their id, and names with path characters are refused', (t) => {
  const references = new ReferenceStore(openStore(t))
  references.put('guest-1', '{"id":"guest-1"}', new Date(5))
  t.deepEqual(references.list(), [{ id: 'guest-1', document: '{"id":"guest-1"}', createdAt: new Date(5) }])
  for (const id of ['', '.', '..', 'a/b', 'a b', 'x'.repeat(129)]) {
    t.throws(() => parseReferenceId(id), { code: 'ERR_REFERENCE_ID' })
  }
})

test('the attestation log keeps the newest records and shows a handshake as a whole', (t) => {
  const log = new AttestationLog(openStore(t), { keep: 100 })
  const record = (handshake: string, stage: 'auth' | 'attest') => ({
    handshake,
    at: new Date(7),
    stage,
    tee: 'tpm',
    verdict: 'refused' as const,
    code: 'ERR_X',
    reason: 'because',
    hint: undefined,
    checks: [{ claim: 'pcr 9', expected: 'aa', found: 'bb', ok: false, remedy: 'do it' }],
    facts: { resource: 'a/b/c' },
  })
  const first = log.add(record('h1', 'auth'))
  const second = log.add(record('h1', 'attest'))
  t.deepEqual(
    log.handshakeOf(second).map(({ id }) => id),
    [first, second],
  )
  t.like(log.find(second), { code: 'ERR_X', hint: undefined, facts: { resource: 'a/b/c' } })
  for (let index = 0; index < 300; index++) log.add(record(`h${index + 2}`, 'auth'))
  t.is(log.find(first), undefined)
  t.truthy(log.find(second), 'strangers do not push out a guest that was challenged')
  const kept = log.list({ limit: 500 }).length
  t.true(kept >= 101 && kept < 201, `${kept}`)
})
