import test, { type ExecutionContext } from 'ava'
import { verifyAuditLog } from '#attestation/audit/verify-log'
import { AttestationLog } from '#attestation/store/attestation-log'
import { AuditLog } from '#attestation/store/audit-log'
import type { Database } from '#attestation/store/database'
import { KeyRing } from '#attestation/store/key-ring'
import { LocalKeyWrapper } from '#attestation/store/key-wrapper'
import { PostgresDatabase } from '#attestation/store/postgres'
import { ReferenceStore } from '#attestation/store/reference-store'
import { ResourceStore } from '#attestation/store/resource-store'
import { Sealing } from '#attestation/store/sealing'
import { SpentChallenges } from '#attestation/store/spent-challenges'
import { DEFAULT_SETTINGS, TenantStore } from '#attestation/store/tenant-store'
import { farAway } from '../../fixtures/postgres/far-away.ts'
import { type PostgresServer, startPostgres } from '../../fixtures/postgres/server.ts'

const KEY = new LocalKeyWrapper(new Uint8Array(32))
const QUOTA = { maxResources: 100, maxBytes: 1_000_000 }
const REPLICAS = 4

async function replicasOf(t: ExecutionContext, server: PostgresServer): Promise<readonly Database[]> {
  const databases = await Promise.all(Array.from({ length: REPLICAS }, () => PostgresDatabase.open(server.url)))
  for (const database of databases) t.teardown(() => database[Symbol.asyncDispose]())
  return databases
}

async function resourcesOf(database: Database): Promise<ResourceStore> {
  return new ResourceStore({ database, sealing: await Sealing.open(database, KEY, new Date(0)), tenant: 'default' })
}

function nth<T>(list: readonly T[], index: number): T {
  const item = list[index % list.length]
  if (item === undefined) throw new Error('empty list')
  return item
}

test.serial(
  'replicas that start together on an empty PostgreSQL database make its tables and its first key once',
  async (t) => {
    const databases = await replicasOf(t, await startPostgres(t))
    const sealings = await Promise.all(databases.map((database) => Sealing.open(database, KEY, new Date(0))))
    const sealed = nth(sealings, 0).seal(Buffer.from('x'), 'place')
    for (const sealing of sealings) t.is(Buffer.from(sealing.open(sealed, 'place')).toString(), 'x')
    t.is((await nth(databases, 0).all('SELECT id FROM data_keys')).length, 1)
  },
)

test.serial('everything that the verifier keeps is kept by PostgreSQL, too', async (t) => {
  const server = await startPostgres(t)
  const database = nth(await replicasOf(t, server), 0)
  const resources = await resourcesOf(database)
  const at = new Date(1_800_000_000_123)
  const terms = { condition: { kind: 'attested' }, notAfter: at } as const
  await database.transaction((sql) =>
    resources.put(sql, { path: 'a/b/c', content: Buffer.from([0, 255, 1]), terms, at, quota: QUOTA }),
  )
  const found = await resources.find('a/b/c')
  t.deepEqual([...(found?.content ?? [])], [0, 255, 1])
  t.like(found, { version: 1, sizeBytes: 3, notAfter: at, notBefore: null, maxHolders: null, updatedAt: at })
  const references = new ReferenceStore(database, 'default')
  await database.transaction((sql) => references.put(sql, { id: 'g', document: '{"ä":1}', state: 'active' }, at))
  t.like((await references.current(at))[0], { id: 'g', document: '{"ä":1}', state: 'active', until: null })
  const log = new AttestationLog(database, { tenant: 'default', keep: 10 })
  const record = { handshake: 'h', at, stage: 'attest', tee: 'tpm\0', verdict: 'refused' } as const
  const id = await log.add({ ...record, code: 'ERR_X', reason: 'a\0b', hint: undefined, checks: [], facts: {} })
  t.like(await log.find(id), { code: 'ERR_X', reason: 'a\uFFFDb', at })
  const bare = { code: undefined, reason: undefined, hint: undefined, checks: [], facts: {} }
  const reason = await log.add({ ...record, ...bare, stage: 'guest' })
  const lone = await log.add({ ...record, ...bare, handshake: undefined })
  const idsOf = async (asked: string) => (await log.handshakeOf(asked)).map((each) => each.id)
  t.deepEqual(await idsOf(reason), [reason, id])
  t.deepEqual(await idsOf(lone), [lone])
  t.is(await database.transaction((sql) => log.reasonsOf('h', sql)), 1)
  for (let index = 0; index < 100; index++) {
    await log.add({ ...record, ...bare, handshake: `h${index}` })
  }
  t.true((await log.list({ limit: 500 })).length < 80)
  const tenants = new TenantStore(database)
  await database.transaction((sql) => tenants.put(sql, 'shop', { ...DEFAULT_SETTINGS, maxResources: 7 }, at))
  t.is((await tenants.find('shop'))?.maxResources, 7)
  t.true(await database.transaction((sql) => tenants.remove(sql, 'shop')))
})

test.serial('of many replicas that spend one challenge at once, exactly one does', async (t) => {
  const databases = await replicasOf(t, await startPostgres(t))
  const spend = (database: Database) =>
    database.transaction((sql) => new SpentChallenges(database).spend(sql, 'c', 9_000_000_000_000, new Date(1)))
  const results = await Promise.allSettled(Array.from({ length: 24 }, (_, index) => spend(nth(databases, index))))
  t.is(results.filter(({ status }) => status === 'fulfilled').length, 1)
})

test.serial('of many guests that ask all replicas for a one-time secret at once, exactly one gets it', async (t) => {
  const databases = await replicasOf(t, await startPostgres(t))
  const stores = await Promise.all(databases.map(resourcesOf))
  const terms = { condition: { kind: 'attested' }, maxHolders: 1 } as const
  const put = { path: 'a/b/c', content: Buffer.from('once'), terms, at: new Date(1), quota: QUOTA }
  await nth(databases, 0).transaction((sql) => nth(stores, 0).put(sql, put))
  const results = await Promise.allSettled(
    Array.from({ length: 24 }, async (_, index) => {
      const resource = await nth(stores, index).find('a/b/c')
      if (resource === undefined) throw new Error('gone')
      await nth(databases, index).transaction((sql) =>
        nth(stores, index).hold(sql, resource, `guest ${index}`, new Date(2)),
      )
    }),
  )
  t.is(results.filter(({ status }) => status === 'fulfilled').length, 1)
})

test.serial('replicas that write the audit log at once write one log, whose proofs hold', async (t) => {
  const databases = await replicasOf(t, await startPostgres(t))
  const logs = databases.map((database) => new AuditLog(database, 'default'))
  const entry = (subject: string) =>
    ({ at: new Date(1), actor: 'a', action: 'b', subject, verdict: 'accepted' }) as const
  const add = (index: number) =>
    nth(databases, index).transaction((sql) => nth(logs, index).add(sql, entry(`${index}`)))
  await Promise.all(Array.from({ length: 20 }, (_, index) => add(index)))
  const log = nth(logs, 0)
  const source = {
    tree: () => log.tree(),
    leaves: (from: number, limit: number) => log.leaves(from, limit),
    proveConsistency: (older: number, newer: number) => log.proveConsistency(older, newer),
  }
  const checkpoint = await verifyAuditLog(source, undefined)
  t.is(checkpoint.size, 20)
  await Promise.all(Array.from({ length: 13 }, (_, index) => add(index + 20)))
  t.is((await verifyAuditLog(source, checkpoint)).size, 33)
})

test.serial('a replica waits for its turn longer than a statement may take', async (t) => {
  const databases = await replicasOf(t, await startPostgres(t))
  const order: string[] = []
  const started = Promise.withResolvers<void>()
  const slow = nth(databases, 0).transaction(async (sql) => {
    started.resolve()
    for (let second = 0; second < 7; second++) await sql.get('SELECT 1 AS one FROM pg_sleep(1)')
    order.push('slow')
  })
  await started.promise
  const next = nth(databases, 1).transaction(async () => {
    order.push('next')
  })
  await Promise.all([slow, next])
  t.deepEqual(order, ['slow', 'next'])
})

test.serial('replicas that find a signing key too old at once agree on its successor', async (t) => {
  const databases = await replicasOf(t, await startPostgres(t))
  const rings = await Promise.all(
    databases.map(async (database, index) => {
      const sealing = await Sealing.open(database, KEY, new Date(0))
      const now = () => new Date(1_000_000)
      const generate = () => ({ kid: `of replica ${index}`, material: 'm' })
      return new KeyRing({
        database,
        sealing,
        tenant: 'default',
        kind: 'k',
        rotateAfterMs: 1000,
        keepMs: 1000,
        now,
        generate,
      })
    }),
  )
  const kids = await Promise.all(rings.map(async (ring) => (await ring.current()).kid))
  t.is(new Set(kids).size, 1)
})

test.serial(
  'a PostgreSQL server that was killed is used again when it is back, and what was committed is there',
  async (t) => {
    const server = await startPostgres(t)
    const database = nth(await replicasOf(t, server), 0)
    const spent = new SpentChallenges(database)
    await database.transaction((sql) => spent.spend(sql, 'before', 9_000_000_000_000, new Date(1)))
    await server.kill()
    await t.throwsAsync(
      database.transaction((sql) => spent.spend(sql, 'during', 9_000_000_000_000, new Date(1))),
      {
        code: 'ERR_STORE_FAILED',
      },
    )
    await server.start()
    t.true(await spent.isSpent('before'))
    await t.notThrowsAsync(database.transaction((sql) => spent.spend(sql, 'during', 9_000_000_000_000, new Date(1))))
  },
)

test.serial(
  'a replica that is cut off in the middle of a decision has decided nothing, and goes on by itself when the wire is mended',
  async (t) => {
    const wire = farAway(t)
    const server = await startPostgres(t, wire)
    const [database, other] = (await replicasOf(t, server)) as [Database, Database]
    const spent = new SpentChallenges(database)
    const spend = (on: Database, id: string) =>
      on.transaction((sql) => spent.spend(sql, id, 9_000_000_000_000, new Date(1)))
    const cut = database.transaction(async (sql) => {
      await spent.spend(sql, 'cut', 9_000_000_000_000, new Date(1))
      wire.cut()
      await sql.get('SELECT 1 AS one')
    })
    await t.throwsAsync(cut, { code: 'ERR_STORE_FAILED' })
    wire.mend()
    // The lock of the one that fell silent is taken back by the server, and dead connections are replaced.
    for (const deadline = Date.now() + 120_000; ; ) {
      const [mine, others] = await Promise.allSettled([spend(database, 'after'), spend(other, 'of another')])
      const isDone = (result: PromiseSettledResult<unknown>) =>
        result.status === 'fulfilled' || String(result.reason.code) === 'ERR_CHALLENGE_SPENT'
      if (isDone(mine) && isDone(others)) break
      if (Date.now() > deadline) return t.fail('it did not go on')
    }
    t.false(await spent.isSpent('cut'))
    t.true((await spent.isSpent('after')) && (await spent.isSpent('of another')))
  },
)

test.serial('a PostgreSQL server that is not there is told by address and remedy, without its password', async (t) => {
  const error = await t.throwsAsync(PostgresDatabase.open('postgresql://u:hunter2@127.0.0.1:1/x'), {
    code: 'ERR_STORE_OPEN',
  })
  t.false(JSON.stringify([error?.message, error]).includes('hunter2'))
})
