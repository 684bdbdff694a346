/** Commands that work on a store that is there: they make none, and change none into another version. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import test, { type ExecutionContext } from 'ava'
import { createStoreKey, LocalKeyWrapper } from '#attestation/store/key-wrapper'
import { openDatabase, openExistingDatabase } from '#attestation/store/open-database'
import { SCHEMA_VERSION } from '#attestation/store/schema'
import { Sealing } from '#attestation/store/sealing'
import { parseInvocation } from '#cli/command'
import { verifierBackup } from '#cli/commands/verifier-backup'
import { verifierRekey } from '#cli/commands/verifier-rekey'
import { startPostgres } from '../../fixtures/postgres/server.ts'
import { Captured } from '../attestation-verifier/desk.ts'

const KEY = new LocalKeyWrapper(new Uint8Array(32))

interface Desk {
  readonly file: (name: string) => string
  readonly backup: (store: string) => Promise<number>
  readonly rekey: (store: string) => Promise<number>
}

function deskOf(t: ExecutionContext): Desk {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-store-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = (name: string) => join(folder, name)
  writeFileSync(file('store.key'), createStoreKey())
  return {
    file,
    backup: (store) =>
      verifierBackup.run(parseInvocation(verifierBackup, [file('backup'), '--store', store], new Captured(false))),
    rekey: (store) => {
      const words = ['--store', store, '--store-key', file('store.key'), '--new-key', file('new.key')]
      return verifierRekey.run(parseInvocation(verifierRekey, words, new Captured(false)))
    },
  }
}

async function refusedBoth(t: ExecutionContext, { file, backup, rekey }: Desk, store: string, code: string) {
  for (const command of [backup, rekey]) {
    const error = await t.throwsAsync(command(store), { code })
    t.false(String(error?.message).includes(':secret@'))
    t.truthy(Reflect.get(error ?? {}, 'hint'))
  }
  t.false(existsSync(file('backup')))
  t.false(existsSync(file('new.key')))
}

test('of a store that is not there no backup is made and no key is changed, and none is made by asking', async (t) => {
  const desk = deskOf(t)
  await refusedBoth(t, desk, desk.file('typo.db'), 'ERR_STORE_ABSENT')
  t.false(existsSync(desk.file('typo.db')))
  writeFileSync(desk.file('empty.db'), '')
  await refusedBoth(t, desk, desk.file('empty.db'), 'ERR_STORE_ABSENT')
  t.is(readFileSync(desk.file('empty.db')).byteLength, 0)
  writeFileSync(desk.file('text.db'), 'no database at all, but long enough to be taken for the head of one'.repeat(20))
  await refusedBoth(t, desk, desk.file('text.db'), 'ERR_STORE_OPEN')
})

test('a store that no verifier has used yet is not taken for one that has lost everything', async (t) => {
  const desk = deskOf(t)
  const store = desk.file('unused.db')
  await (await openDatabase(store))[Symbol.asyncDispose]()
  await refusedBoth(t, desk, store, 'ERR_STORE_ABSENT')
})

test('a backup or another key leaves a store of another version as it is, and says who can', async (t) => {
  const desk = deskOf(t)
  const store = desk.file('verifier.db')
  const made = await openDatabase(store)
  await Sealing.open(made, KEY, new Date(0))
  await made[Symbol.asyncDispose]()
  for (const version of [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1]) {
    const db = new DatabaseSync(store)
    db.exec(`PRAGMA user_version = ${version}`)
    db.close()
    await refusedBoth(t, desk, store, 'ERR_STORE_VERSION')
    const after = new DatabaseSync(store)
    t.is(after.prepare('PRAGMA user_version').get()?.user_version, version)
    after.close()
  }
})

test('a PostgreSQL database without a store stays empty', async (t) => {
  const desk = deskOf(t)
  const { url } = await startPostgres(t)
  await refusedBoth(t, desk, url, 'ERR_STORE_ABSENT')
  const made = await openDatabase(url)
  await refusedBoth(t, desk, url, 'ERR_STORE_ABSENT')
  await Sealing.open(made, KEY, new Date(0))
  await (await openExistingDatabase(url))[Symbol.asyncDispose]()
  t.is(await desk.backup(url), 0)
  rmSync(desk.file('backup'))
  for (const version of [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1]) {
    await made.run('UPDATE caisson_schema SET version = ?', version)
    await refusedBoth(t, desk, url, 'ERR_STORE_VERSION')
  }
  await made[Symbol.asyncDispose]()
})
