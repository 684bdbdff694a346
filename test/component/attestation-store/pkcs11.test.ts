import { execFileSync } from 'node:child_process'
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { LocalKeyWrapper } from '#attestation/store/key-wrapper'
import { Pkcs11KeyWrapper } from '#attestation/store/pkcs11-key-wrapper'
import { parsePkcs11Uri } from '#attestation/store/pkcs11-uri'
import { rewrap, Sealing } from '#attestation/store/sealing'
import { IN_MEMORY, SqliteDatabase } from '#attestation/store/sqlite'
import { verifierRekey } from '#cli/commands/verifier-rekey'

const MODULE = '/usr/lib/softhsm/libsofthsm2.so'
const PIN = '648219'

/** SoftHSM reads its configuration once per process, so all tests share one folder of tokens. */
const directory = mkdtempSync(join(tmpdir(), 'caisson-softhsm-'))
const pinFile = join(directory, 'pin')
mkdirSync(join(directory, 'tokens'))
writeFileSync(pinFile, `${PIN}\n`, { mode: 0o600 })
writeFileSync(
  join(directory, 'softhsm2.conf'),
  `directories.tokendir = ${directory}/tokens\nobjectstore.backend = file\n`,
)
process.env.SOFTHSM2_CONF = join(directory, 'softhsm2.conf')
for (const label of ['first', 'second']) {
  const pins = ['--so-pin', '1234567890', '--pin', PIN]
  execFileSync('softhsm2-util', ['--init-token', '--free', '--label', label, ...pins], { stdio: 'pipe' })
}
importExtractableKey()
test.after.always(() => rmSync(directory, { recursive: true }))

/** SoftHSM's tool imports keys as ones that stay; its files say so in the open: attribute, kind (boolean), value. */
function importExtractableKey(): void {
  const plain = join(directory, 'aes')
  writeFileSync(plain, new Uint8Array(32))
  const key = ['--token', 'second', '--label', 'imported', '--id', 'a1', '--pin', PIN]
  execFileSync('softhsm2-util', ['--import', plain, '--aes', ...key], { stdio: 'pipe' })
  const [object = ''] = globSync(`${directory}/tokens/*/*.object`).filter((path) => !path.endsWith('token.object'))
  const bytes = readFileSync(object)
  const attribute = Buffer.from('00000000000001620000000000000001', 'hex')
  bytes[bytes.indexOf(attribute) + attribute.length] = 1
  writeFileSync(object, bytes)
}

const uriOf = (token: string, object: string, more = `pin-source=file:${pinFile}`) =>
  `pkcs11:token=${token};object=${object}?module-path=${MODULE}&${more}`
const wrapperOf = (token: string, object: string, more?: string) =>
  new Pkcs11KeyWrapper(parsePkcs11Uri(uriOf(token, object, more)))
const KEY = new Uint8Array(32).fill(5)
const ID = '0011223344556677'

async function storeOf(t: ExecutionContext): Promise<SqliteDatabase> {
  const database = await SqliteDatabase.open(IN_MEMORY)
  t.teardown(() => database[Symbol.asyncDispose]())
  return database
}

test.serial('a key that a token made wraps data keys, which only that key, in that place, opens again', async (t) => {
  const wrapper = wrapperOf('first', 'store')
  await wrapper.generate()
  const [wrapped, again] = [await wrapper.wrap(KEY, ID), await wrapper.wrap(KEY, ID)]
  t.is(wrapped.byteLength, 12 + 32 + 16)
  t.notDeepEqual(wrapped, again)
  t.deepEqual(await wrapper.unwrap(wrapped, ID), KEY)
  await t.throwsAsync(wrapper.unwrap(wrapped, '8877665544332211'), { code: 'ERR_STORE_KEY' })
  for (const at of [0, 12, 43, 59]) {
    const changed = wrapped.map((byte, index) => (index === at ? byte ^ 1 : byte))
    await t.throwsAsync(wrapper.unwrap(changed, ID), { code: 'ERR_STORE_KEY' }, `byte ${at}`)
  }
  await t.throwsAsync(wrapper.unwrap(wrapped.subarray(0, 59), ID), { code: 'ERR_STORE_KEY' })
  const other = wrapperOf('first', 'other')
  await other.generate()
  await t.throwsAsync(other.unwrap(wrapped, ID), { code: 'ERR_STORE_KEY' })
  await t.throwsAsync(wrapper.generate(), { code: 'ERR_PKCS11', message: /already/ })
})

test.serial('a store moves into a token and out again, and its secrets stay readable', async (t) => {
  const database = await storeOf(t)
  const local = new LocalKeyWrapper(new Uint8Array(32))
  const sealed = (await Sealing.open(database, local, new Date(0))).seal(Buffer.from('secret'), 'here')
  const token = wrapperOf('first', 'moved')
  await token.generate()
  t.is(await rewrap(database, local, async () => token), 1)
  await t.throwsAsync(Sealing.open(database, local, new Date(0)), { code: 'ERR_STORE_KEY' })
  const opened = await Sealing.open(database, token, new Date(0))
  t.is(Buffer.from(opened.open(sealed, 'here')).toString(), 'secret')
  t.is(await rewrap(database, token, async () => local), 1)
  await t.throwsAsync(Sealing.open(database, token, new Date(0)), { code: 'ERR_STORE_KEY' })
  const back = await Sealing.open(database, local, new Date(0))
  t.is(Buffer.from(back.open(sealed, 'here')).toString(), 'secret')
})

test.serial('a key that may leave its token is not used', async (t) => {
  const error = await t.throwsAsync(wrapperOf('second', 'imported').wrap(KEY, ID), { code: 'ERR_PKCS11' })
  t.regex(error?.message ?? '', /leave/)
})

test.serial(
  'what is wrong with a token is said: no such token, no such key, a wrong PIN, a module that is none',
  async (t) => {
    const wrongPin = join(directory, 'wrong-pin')
    writeFileSync(wrongPin, '1111')
    const cases: [Pkcs11KeyWrapper, RegExp][] = [
      [wrapperOf('third', 'store'), /no token/],
      [wrapperOf('first', 'missing'), /no AES key/],
      [wrapperOf('second', 'store', `pin-source=file:${wrongPin}`), /refuses the PIN|no AES key/],
      [wrapperOf('first', 'store', `pin-source=file:${directory}/none`), /PIN cannot be read/],
      [new Pkcs11KeyWrapper({ modulePath: '/usr/lib/none.so', token: 'first', object: 'a', pinFile }), /module/],
      [new Pkcs11KeyWrapper({ modulePath: process.execPath, token: 'first', object: 'a', pinFile }), /module/],
    ]
    for (const [wrapper, message] of cases) {
      await t.throwsAsync(wrapper.wrap(KEY, ID), { code: 'ERR_PKCS11', message }, String(message))
    }
  },
)

test.serial('the command line moves a store from a key file into a token, which it makes the key in', async (t) => {
  const store = join(directory, 'verifier.db')
  const keyFile = join(directory, 'store.key')
  writeFileSync(keyFile, `${'00'.repeat(32)}\n`)
  const database = await SqliteDatabase.open(store)
  await Sealing.open(database, new LocalKeyWrapper(new Uint8Array(32)), new Date(0))
  await database[Symbol.asyncDispose]()
  const uri = uriOf('second', 'from-cli')
  const args: Readonly<Record<string, string>> = { store, 'store-key': keyFile, 'new-key': uri }
  const results: unknown[] = []
  const status = await verifierRekey.run({
    required: (name: string) => args[name] ?? '',
    out: { result: (value: unknown) => results.push(value) },
  } as never)
  t.is(status, 0)
  t.deepEqual(results, [{ dataKeys: 1, newKey: uri }])
  t.false(existsSync(uri))
  const moved = await SqliteDatabase.open(store)
  t.teardown(() => moved[Symbol.asyncDispose]())
  await t.notThrowsAsync(Sealing.open(moved, wrapperOf('second', 'from-cli'), new Date(0)))
})
