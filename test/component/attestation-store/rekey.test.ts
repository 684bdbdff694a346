/** `caisson verifier rekey` on a store: after each failure the present key opens it, as before. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { createStoreKey, LocalKeyWrapper, parseStoreKey } from '#attestation/store/key-wrapper'
import { Sealing } from '#attestation/store/sealing'
import { SqliteDatabase } from '#attestation/store/sqlite'
import { parseInvocation } from '#cli/command'
import { verifierRekey } from '#cli/commands/verifier-rekey'
import { Captured } from '../attestation-verifier/desk.ts'

interface Store {
  readonly folder: string
  readonly store: string
  readonly keyFile: string
  /** Opens the secret that is in it. */
  readonly secret: (keyFile: string) => Promise<string>
  readonly rekey: (newKey: string, keyFile?: string) => Promise<number>
}

async function sealedStore(t: ExecutionContext): Promise<Store> {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-rekey-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const [store, keyFile] = [join(folder, 'verifier.db'), join(folder, 'store.key')]
  writeFileSync(keyFile, createStoreKey(), { mode: 0o600 })
  const wrapperOf = (path: string) => new LocalKeyWrapper(parseStoreKey(readFileSync(path, 'utf8')))
  const database = await SqliteDatabase.open(store)
  const sealed = (await Sealing.open(database, wrapperOf(keyFile), new Date(0))).seal(Buffer.from('secret'), 'here')
  await database[Symbol.asyncDispose]()
  return {
    folder,
    store,
    keyFile,
    secret: async (path) => {
      await using opened = await SqliteDatabase.open(store)
      return Buffer.from((await Sealing.open(opened, wrapperOf(path), new Date(0))).open(sealed, 'here')).toString()
    },
    rekey: (newKey, present = keyFile) => {
      const words = ['--store', store, '--store-key', present, '--new-key', newKey]
      return verifierRekey.run(parseInvocation(verifierRekey, words, new Captured(false)))
    },
  }
}

test('a store gets a new key, and the old one opens nothing any more', async (t) => {
  const { folder, keyFile, secret, rekey } = await sealedStore(t)
  const next = join(folder, 'next.key')
  t.is(await rekey(next), 0)
  t.is(await secret(next), 'secret')
  await t.throwsAsync(secret(keyFile), { code: 'ERR_STORE_KEY' })
})

test('a new key is never written over a file that is there, least of all over the present key', async (t) => {
  const { folder, keyFile, secret, rekey } = await sealedStore(t)
  const before = readFileSync(keyFile, 'utf8')
  await t.throwsAsync(rekey(keyFile), { code: 'ERR_FILE_EXISTS' })
  t.is(readFileSync(keyFile, 'utf8'), before)
  const other = join(folder, 'other')
  writeFileSync(other, 'of somebody else')
  await t.throwsAsync(rekey(other), { code: 'ERR_FILE_EXISTS' })
  t.is(readFileSync(other, 'utf8'), 'of somebody else')
  t.is(await secret(keyFile), 'secret')
})

test('a new key is made only when the present one opens the store', async (t) => {
  const { folder, keyFile, secret, rekey } = await sealedStore(t)
  const [wrong, next] = [join(folder, 'wrong.key'), join(folder, 'next.key')]
  writeFileSync(wrong, createStoreKey())
  await t.throwsAsync(rekey(next, wrong), { code: 'ERR_STORE_KEY' })
  t.false(existsSync(next))
  t.is(await secret(keyFile), 'secret')
})
