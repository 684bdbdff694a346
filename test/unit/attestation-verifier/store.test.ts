import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import test, { type ExecutionContext } from 'ava'
import { AttestationLog } from '#attestation/store/attestation-log'
import type { Database } from '#attestation/store/database'
import { KeyRing } from '#attestation/store/key-ring'
import { createStoreKey, LocalKeyWrapper, parseStoreKey } from '#attestation/store/key-wrapper'
import { parseReferenceId, ReferenceStore } from '#attestation/store/reference-store'
import { parseResourcePath, type ReleaseTerms, ResourceStore } from '#attestation/store/resource-store'
import { rewrap, Sealing } from '#attestation/store/sealing'
import { SpentChallenges } from '#attestation/store/spent-challenges'
import { SqliteDatabase } from '#attestation/store/sqlite'
import { parseTenantName, TenantStore } from '#attestation/store/tenant-store'
import { parseTenantSettings } from '#attestation/verifier/admin/tenants'
import { altered, refusesOrKeeps } from '../parser-property.ts'

const QUOTA = { maxResources: 3, maxBytes: 2_000_000 }
const ATTESTED: ReleaseTerms = { condition: { kind: 'attested' } }
const KEY = new LocalKeyWrapper(new Uint8Array(32))

function storePath(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-store-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return join(directory, 'verifier.db')
}

async function openStore(t: ExecutionContext, path = storePath(t)): Promise<SqliteDatabase> {
  const database = await SqliteDatabase.open(path)
  t.teardown(() => database[Symbol.asyncDispose]())
  return database
}

async function resourcesOf(database: Database, tenant = 'default'): Promise<ResourceStore> {
  return new ResourceStore({ database, sealing: await Sealing.open(database, KEY, new Date(0)), tenant })
}

function put(
  database: Database,
  resources: ResourceStore,
  path: string,
  content: string,
  terms = ATTESTED,
  at = new Date(1),
) {
  return database.transaction((sql) =>
    resources.put(sql, { path, content: Buffer.from(content), terms, at, quota: QUOTA }),
  )
}

test('the store and its side files are readable by their owner alone', async (t) => {
  const path = storePath(t)
  await (await openStore(t, path)).run('DELETE FROM signing_keys')
  for (const suffix of ['', '-wal', '-shm']) t.is(statSync(path + suffix).mode & 0o777, 0o600, suffix)
})

test('a store that a newer release wrote is refused, not read as an old one', async (t) => {
  const path = storePath(t)
  await openStore(t, path)
  const raw = new DatabaseSync(path)
  raw.exec('PRAGMA user_version = 99')
  raw.close()
  await t.throwsAsync(SqliteDatabase.open(path), { code: 'ERR_STORE_VERSION' })
})

test('a store in a directory that does not exist is refused with a hint', async (t) => {
  const error = await t.throwsAsync(SqliteDatabase.open('/nonexistent/verifier.db'), { code: 'ERR_STORE_OPEN' })
  t.true(error !== undefined && 'hint' in error)
})

test('a file that is no database is refused', async (t) => {
  await t.throwsAsync(SqliteDatabase.open(import.meta.filename.replace('store.test.ts', '')), {
    code: 'ERR_STORE_OPEN',
  })
})

test('a transaction that throws leaves nothing behind, and nobody sees its work before it ends', async (t) => {
  const database = await openStore(t)
  const resources = await resourcesOf(database)
  let seen: Promise<unknown> = Promise.resolve()
  await t.throwsAsync(
    database.transaction(async (sql) => {
      await resources.put(sql, { path: 'a/b/c', content: Buffer.of(1), terms: ATTESTED, at: new Date(), quota: QUOTA })
      seen = resources.find('a/b/c')
      await new Promise((resolve) => setImmediate(resolve))
      throw new Error('afterwards')
    }),
  )
  t.is(await seen, undefined)
  t.is(await resources.find('a/b/c'), undefined)
})

test('a challenge is spent once, by whichever process comes first', async (t) => {
  const path = storePath(t)
  const [first, second] = [await openStore(t, path), await openStore(t, path)]
  const now = new Date(1_000_000)
  await first.transaction((sql) => new SpentChallenges(first).spend(sql, 'c1', 2_000_000, now))
  t.true(await new SpentChallenges(second).isSpent('c1'))
  const again = second.transaction((sql) => new SpentChallenges(second).spend(sql, 'c1', 2_000_000, now))
  await t.throwsAsync(again, { code: 'ERR_CHALLENGE_SPENT' })
})

test('spent challenges are forgotten when their sessions have expired anyway', async (t) => {
  const database = await openStore(t)
  const spent = new SpentChallenges(database)
  await spent.spend(database, 'old', 1_000, new Date(0))
  await spent.spend(database, 'new', 9_000, new Date(5_000))
  t.false(await spent.isSpent('old'))
  t.true(await spent.isSpent('new'))
})

async function ring(database: Database, clock: { now: number }): Promise<KeyRing> {
  let count = 0
  return new KeyRing({
    database,
    sealing: await Sealing.open(database, KEY, new Date(0)),
    tenant: 'default',
    kind: 'test',
    rotateAfterMs: 10_000,
    keepMs: 5_000,
    now: () => new Date(clock.now),
    generate: () => ({ kid: `${clock.now}-${count++}`, material: 'secret' }),
  })
}

test('a key is used until it is due, and stays readable until nothing made with it can be valid', async (t) => {
  const clock = { now: 100_000 }
  const keys = await ring(await openStore(t), clock)
  const first = await keys.current()
  clock.now = 109_900
  t.is((await keys.current()).kid, first.kid)
  clock.now = 110_000
  const second = await keys.current()
  t.not(second.kid, first.kid)
  t.deepEqual(
    (await keys.all()).map(({ kid }) => kid),
    [second.kid, first.kid],
  )
  clock.now = 115_000
  t.truthy(await keys.find(first.kid))
  clock.now = 115_001
  t.is(await keys.find(first.kid), undefined)
})

test('two processes share one current key; a rotation is seen by the other within a second, its keys at once', async (t) => {
  const path = storePath(t)
  const clock = { now: 1_000 }
  const [a, b] = [await ring(await openStore(t, path), clock), await ring(await openStore(t, path), clock)]
  t.is((await a.current()).kid, (await b.current()).kid)
  clock.now = 1_001
  const rotated = await a.rotate()
  t.is((await b.find(rotated.kid))?.kid, rotated.kid)
  clock.now = 2_001
  t.is((await b.current()).kid, rotated.kid)
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

test('replacing a resource counts its version up and changes its condition; the version before can come back', async (t) => {
  const database = await openStore(t)
  const resources = await resourcesOf(database)
  await put(database, resources, 'a/b/c', '1')
  const images = { kind: 'images', manifests: [`sha256:${'0'.repeat(64)}`] } as const
  await put(database, resources, 'a/b/c', '23', { condition: images }, new Date(2))
  const [info, ...others] = await resources.list()
  t.like(info, { path: 'a/b/c', sizeBytes: 2, release: images, version: 2, updatedAt: new Date(2) })
  t.deepEqual(others, [])
  t.is(Buffer.from((await resources.find('a/b/c'))?.content ?? []).toString(), '23')
  t.true(await database.transaction((sql) => resources.rollBack(sql, 'a/b/c')))
  t.is(Buffer.from((await resources.find('a/b/c'))?.content ?? []).toString(), '1')
  t.false(await database.transaction((sql) => resources.rollBack(sql, 'a/b/c')))
  t.true(await database.transaction((sql) => resources.remove(sql, 'a/b/c')))
  t.false(await database.transaction((sql) => resources.remove(sql, 'a/b/c')))
})

test('a resource larger than the limit, or beyond the tenant’s quota, is refused', async (t) => {
  const database = await openStore(t)
  const resources = await resourcesOf(database)
  const limit = { code: 'ERR_RESOURCE_LIMIT' }
  await t.throwsAsync(put(database, resources, 'a/b/c', 'x'.repeat(1024 * 1024 + 1)), limit)
  for (const tag of ['1', '2', '3']) await put(database, resources, `a/b/${tag}`, 'x'.repeat(600_000))
  await t.throwsAsync(put(database, resources, 'a/b/4', 'x'), limit)
  await t.throwsAsync(put(database, resources, 'a/b/3', 'x'.repeat(600_000)), limit, 'older versions count, too')
  await put(database, await resourcesOf(database, 'other'), 'a/b/4', 'x')
})

test('a one-time secret is for one guest: the same may ask again, another may not', async (t) => {
  const database = await openStore(t)
  const resources = await resourcesOf(database)
  await put(database, resources, 'a/b/c', 'once', { ...ATTESTED, maxHolders: 1 })
  const hold = async (holder: string) => {
    const resource = await resources.find('a/b/c')
    if (resource === undefined) throw new Error('gone')
    await database.transaction((sql) => resources.hold(sql, resource, holder, new Date(5)))
  }
  const results = await Promise.allSettled(['one', 'two', 'three'].map(hold))
  t.is(results.filter(({ status }) => status === 'fulfilled').length, 1)
  await t.notThrowsAsync(hold('one'))
  await t.throwsAsync(hold('two'), { code: 'ERR_RESOURCE_SPENT' })
  await put(database, resources, 'a/b/c', 'again', { ...ATTESTED, maxHolders: 1 })
  await t.notThrowsAsync(hold('two'))
})

test('reference values count when active, not as candidates, and retired ones until their time is over', async (t) => {
  const database = await openStore(t)
  const references = new ReferenceStore(database, 'default')
  const change = <T>(work: (sql: Parameters<Parameters<Database['transaction']>[0]>[0]) => Promise<T>) =>
    database.transaction(work)
  await change((sql) => references.put(sql, { id: 'old', document: '{"id":"old"}', state: 'active' }, new Date(5)))
  await change((sql) => references.put(sql, { id: 'new', document: '{"id":"new"}', state: 'candidate' }, new Date(6)))
  const current = async (at: number) => (await references.current(new Date(at))).map(({ id }) => id)
  t.deepEqual(await current(10), ['old'])
  t.true(await change((sql) => references.promote(sql, 'new')))
  t.true(await change((sql) => references.retire(sql, 'old', new Date(20))))
  t.deepEqual(await current(10), ['new', 'old'], 'both count in the overlap')
  t.deepEqual(await current(20), ['new'])
  t.true(await change((sql) => references.promote(sql, 'old')), 'a retirement can be taken back')
  t.deepEqual(await current(30), ['new', 'old'])
  t.false(await change((sql) => references.retire(sql, 'none', new Date(20))))
  for (const id of ['', '.', '..', 'a/b', 'a b', 'x'.repeat(129)]) {
    t.throws(() => parseReferenceId(id), { code: 'ERR_REFERENCE_ID' })
  }
})

test('the attestation log keeps the newest records and shows a handshake as a whole', async (t) => {
  const log = new AttestationLog(await openStore(t), { tenant: 'default', keep: 100 })
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
  const first = await log.add(record('h1', 'auth'))
  const second = await log.add(record('h1', 'attest'))
  t.deepEqual(
    (await log.handshakeOf(second)).map(({ id }) => id),
    [second, first],
  )
  t.like(await log.find(second), { code: 'ERR_X', hint: undefined, facts: { resource: 'a/b/c' } })
  for (let index = 0; index < 300; index++) await log.add(record(`h${index + 2}`, 'auth'))
  t.is(await log.find(first), undefined)
  t.truthy(await log.find(second), 'strangers do not push out a guest that was challenged')
  const kept = (await log.list({ limit: 500 })).length
  t.true(kept >= 101 && kept < 201, `${kept}`)
})

test('the record that is asked for comes first, with the attestation and the newest others, however many there are', async (t) => {
  const log = new AttestationLog(await openStore(t), { tenant: 'default', keep: 1000 })
  const record = (stage: 'attest' | 'release', verdict: 'accepted' | 'refused') => ({
    handshake: 'h',
    at: new Date(7),
    stage,
    tee: 'tpm',
    verdict,
    code: undefined,
    reason: undefined,
    hint: undefined,
    checks: [],
    facts: {},
  })
  const attested = await log.add(record('attest', 'accepted'))
  const released: string[] = []
  for (let index = 0; index < 250; index++) released.push(await log.add(record('release', 'refused')))
  for (const asked of [attested, ...released.slice(0, 1), ...released.slice(120, 121), ...released.slice(-1)]) {
    const newest = released.filter((id) => id !== asked)
    const others = asked === attested ? newest.slice(-99) : [attested, ...newest.slice(-98)]
    t.deepEqual(
      (await log.handshakeOf(asked)).map(({ id }) => id),
      [asked, ...others],
    )
  }
  t.deepEqual(await log.handshakeOf('none'), [])
})

test('secrets are sealed in the store’s file, and open with its key alone, at their own place alone', async (t) => {
  const path = storePath(t)
  const database = await openStore(t, path)
  const resources = await resourcesOf(database)
  await put(database, resources, 'a/b/c', 'a canary that nobody may find')
  await put(database, resources, 'a/b/d', 'another')
  await (await ring(database, { now: 1_000 })).current()
  await database.get('PRAGMA wal_checkpoint(TRUNCATE)')
  const file = readFileSync(path)
  t.true(file.includes('a/b/c'), 'the search finds what is there')
  t.false(file.includes('canary') || file.includes('secret'))
  const wrong = new LocalKeyWrapper(new Uint8Array(32).fill(1))
  await t.throwsAsync(Sealing.open(database, wrong, new Date(0)), { code: 'ERR_STORE_KEY' })
  await database.run(
    "UPDATE resource_versions SET content = (SELECT content FROM resource_versions WHERE path = 'a/b/d')",
  )
  await t.throwsAsync(resources.find('a/b/c'), { code: 'ERR_STORE_SEALED' })
  t.is(Buffer.from((await resources.find('a/b/d'))?.content ?? []).toString(), 'another')
})

test('a store gets another key without its secrets being touched, and the old key opens nothing any more', async (t) => {
  const database = await openStore(t)
  await put(database, await resourcesOf(database), 'a/b/c', 'kept')
  const next = new LocalKeyWrapper(parseStoreKey(createStoreKey()))
  t.is(await rewrap(database, KEY, async () => next), 1)
  await t.throwsAsync(Sealing.open(database, KEY, new Date(0)), { code: 'ERR_STORE_KEY' })
  const resources = new ResourceStore({
    database,
    sealing: await Sealing.open(database, next, new Date(0)),
    tenant: 'default',
  })
  t.is(Buffer.from((await resources.find('a/b/c'))?.content ?? []).toString(), 'kept')
})

test('tenants keep the same names for different things, and a removed one takes all of its own with it', async (t) => {
  const database = await openStore(t)
  const tenants = new TenantStore(database)
  const [one, two] = [await resourcesOf(database, 'one'), await resourcesOf(database, 'two')]
  for (const name of ['one', 'two']) {
    await database.transaction((sql) => tenants.put(sql, name, parseTenantSettings('{}'), new Date(1)))
  }
  await put(database, one, 'a/b/c', 'of one')
  await put(database, two, 'a/b/c', 'of two')
  t.is(Buffer.from((await one.find('a/b/c'))?.content ?? []).toString(), 'of one')
  t.true(await database.transaction((sql) => tenants.remove(sql, 'one')))
  t.is(await one.find('a/b/c'), undefined)
  t.is(await tenants.find('one'), undefined)
  t.is(Buffer.from((await two.find('a/b/c'))?.content ?? []).toString(), 'of two')
  t.truthy(await tenants.find('default'), 'the default tenant needs no thought')
  for (const name of ['', 'A', 'a/b', '..', '-a', 'a'.repeat(64)]) {
    t.throws(() => parseTenantName(name), { code: 'ERR_TENANT_NAME' })
  }
})

test('whatever is sent as settings of a tenant keeps to their limits or is refused', (t) => {
  const good = { admins: [], maxResources: 5, maxResourceBytes: 5, keepAttestations: 5, requestsPerMinute: 5 }
  refusesOrKeeps(
    t,
    altered(good),
    (value) => parseTenantSettings(JSON.stringify(value) ?? ''),
    (settings) => (settings.maxResources ?? 1) >= 1 && (settings.requestsPerMinute ?? 1) >= 1,
  )
  refusesOrKeeps(t, altered({ key: 'x' }), (value) => parseStoreKey(JSON.stringify(value) ?? ''))
})
