/** SQLite commits transactions that wait at the same time together; nobody may notice, except by the clock. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import test, { type ExecutionContext } from 'ava'
import type { Sql, SqlReader } from '#attestation/store/database'
import { SqliteDatabase } from '#attestation/store/sqlite'
import { WriteAheadLog } from '#attestation/store/write-ahead-log'

async function openStore(t: ExecutionContext): Promise<{ database: SqliteDatabase; path: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-store-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'verifier.db')
  const database = await SqliteDatabase.open(path)
  t.teardown(() => database[Symbol.asyncDispose]())
  return { database, path }
}

const insert = (sql: Sql, id: string) => sql.run('INSERT INTO spent (id, expires_ms) VALUES (?, 1)', id)

type Done = (error: Error | null) => void

/** A store whose disk takes as long as the test lets it. */
async function openSlowStore(t: ExecutionContext): Promise<{ database: SqliteDatabase; waiting: Done[] }> {
  const directory = mkdtempSync(join(tmpdir(), 'caisson-store-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const waiting: Done[] = []
  const openLog = (path: string): WriteAheadLog => new WriteAheadLog(path, (_fd, done) => void waiting.push(done))
  const database = await SqliteDatabase.open(join(directory, 'verifier.db'), openLog)
  t.teardown(() => database[Symbol.asyncDispose]())
  return { database, waiting }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}

async function ids(database: SqliteDatabase): Promise<string[]> {
  return (await database.all('SELECT id FROM spent ORDER BY id')).map(({ id }) => String(id))
}

test('of transactions that are committed together, one that fails takes nothing else with it', async (t) => {
  const { database, path } = await openStore(t)
  const work = (id: string, end: () => unknown) =>
    database.transaction(async (sql) => {
      await insert(sql, id)
      await insert(sql, `${id} again`)
      return end()
    })
  const results = await Promise.allSettled([
    work('a', () => 1),
    work('b', () => {
      throw new Error('changed its mind')
    }),
    work('c', () => 3),
    database.transaction((sql) => insert(sql, 'a')), // the key is taken, by one that is not committed yet
    work('d', () => 4),
  ])
  t.deepEqual(
    results.map((result) => (result.status === 'fulfilled' ? result.value : String(result.reason))),
    [1, 'Error: changed its mind', 3, "UnavailableError: the verifier's store failed", 4],
  )
  const expected = ['a', 'a again', 'c', 'c again', 'd', 'd again']
  t.deepEqual(await ids(database), expected)
  const other = new DatabaseSync(path)
  t.deepEqual(
    other
      .prepare('SELECT id FROM spent ORDER BY id')
      .all()
      .map(({ id }) => String(id)),
    expected,
    'and on the disk it is the same',
  )
  other.close()
})

test('what is read beside a transaction is what was committed before it', async (t) => {
  const { database } = await openStore(t)
  const written = Promise.withResolvers<void>()
  const goOn = Promise.withResolvers<void>()
  const transaction = database.transaction(async (sql) => {
    await insert(sql, 'a')
    written.resolve()
    await goOn.promise
    throw new Error('no')
  })
  await written.promise
  const read = ids(database)
  goOn.resolve()
  await t.throwsAsync(transaction, { message: 'no' })
  t.deepEqual(await read, [])
})

test('when a commit fails, none of its transactions has happened for anybody', async (t) => {
  const { database } = await openStore(t)
  await database.run('CREATE TABLE parents (id TEXT PRIMARY KEY)')
  await database.run(
    'CREATE TABLE children (parent TEXT REFERENCES parents DEFERRABLE INITIALLY DEFERRED)', // judged at the commit
  )
  const results = await Promise.allSettled([
    database.transaction((sql) => insert(sql, 'a')),
    database.transaction((sql) => sql.run("INSERT INTO children VALUES ('nobody')")),
    database.transaction((sql) => insert(sql, 'b')),
  ])
  t.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected', 'rejected'],
  )
  t.deepEqual(await ids(database), [])
  await t.notThrowsAsync(database.transaction((sql) => insert(sql, 'a')))
  t.deepEqual(await ids(database), ['a'])
})

test('more transactions than one commit takes all happen, in their order', async (t) => {
  const { database } = await openStore(t)
  const order: number[] = []
  await Promise.all(
    Array.from({ length: 500 }, (_, index) =>
      database.transaction(async (sql) => {
        order.push(index)
        await insert(sql, String(index).padStart(3, '0'))
      }),
    ),
  )
  t.deepEqual(
    order,
    Array.from({ length: 500 }, (_, index) => index),
  )
  t.is((await ids(database)).length, 500)
})

test('a store is closed after what was begun, and what comes later is refused', async (t) => {
  const { database, path } = await openStore(t)
  const last = database.transaction((sql) => insert(sql, 'last'))
  await database[Symbol.asyncDispose]()
  await last
  await t.throwsAsync(
    database.transaction((sql) => insert(sql, 'late')),
    { code: 'ERR_STORE_FAILED' },
  )
  const again = await SqliteDatabase.open(path)
  t.deepEqual(await ids(again), ['last'])
  await again[Symbol.asyncDispose]()
})

test('nobody is told of a transaction before it is on the disk, and the next ones do not wait for that', async (t) => {
  const { database, waiting } = await openSlowStore(t)
  const told: string[] = []
  const spend = (id: string): Promise<unknown> =>
    database.transaction((sql) => insert(sql, id)).then(() => told.push(id))
  const first = spend('a')
  await until(() => waiting.length === 1)
  const later = ['b', 'c'].map(spend)
  while ((await ids(database)).length < 3) await new Promise((resolve) => setImmediate(resolve))
  t.deepEqual(told, [], 'all three are committed, and nobody knows')
  t.is(waiting.length, 1, 'the disk is asked again when it has answered')
  waiting.shift()?.(null)
  await first
  t.deepEqual(told, ['a'], 'what was committed later need not be on the disk yet')
  await until(() => waiting.length === 1)
  waiting.shift()?.(null)
  await Promise.all(later)
  t.deepEqual(told, ['a', 'b', 'c'])
})

test('after the disk failed once, the store decides nothing more', async (t) => {
  const { database, waiting } = await openSlowStore(t)
  const lost = database.transaction((sql) => insert(sql, 'a'))
  await until(() => waiting.length === 1)
  waiting.shift()?.(new Error('EIO'))
  await t.throwsAsync(lost, { code: 'ERR_STORE_FAILED' })
  await t.throwsAsync(
    database.transaction((sql) => insert(sql, 'b')),
    { code: 'ERR_STORE_FAILED' },
  )
  await t.throwsAsync(ids(database), { code: 'ERR_STORE_FAILED' })
  t.is(waiting.length, 0, 'a disk that forgot what it could not write would say yes the next time')
})

test('snapshots and transactions that are asked for at once come one after the other, and each sees one moment', async (t) => {
  const { database, path } = await openStore(t)
  const other = await SqliteDatabase.open(path)
  t.teardown(() => other[Symbol.asyncDispose]())
  const seen = (sql: SqlReader) => sql.all('SELECT id FROM spent ORDER BY id')
  const look = (id: string) =>
    database.snapshot(async (sql) => {
      const before = await seen(sql)
      await insert(other, id)
      t.deepEqual(await seen(sql), before)
      return before.length
    })
  const [first, , second] = await Promise.all([
    look('of another process'),
    database.transaction((sql) => insert(sql, 'of this one')),
    look('of another process, later'),
  ])
  t.is(first, 0)
  t.true(second > first)
  const failed = database.snapshot(async () => {
    throw new Error('a full disk')
  })
  await t.throwsAsync(failed, { message: 'a full disk' })
  await database.transaction((sql) => insert(sql, 'after a failure'))
  t.deepEqual(await ids(database), [
    'after a failure',
    'of another process',
    'of another process, later',
    'of this one',
  ])
})
