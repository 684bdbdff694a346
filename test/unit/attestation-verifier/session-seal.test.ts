import test, { type ExecutionContext } from 'ava'
import { LocalKeyWrapper } from '#attestation/store/key-wrapper'
import { Sealing } from '#attestation/store/sealing'
import { IN_MEMORY, SqliteDatabase } from '#attestation/store/sqlite'
import { openAttestedSession } from '#attestation/verifier/kbs-session'
import { SessionSealer } from '#attestation/verifier/session-seal'
import { UnavailableError } from '#protocol/errors'

const MINUTE = 60_000

async function sealer(t: ExecutionContext, clock: { now: number }): Promise<SessionSealer> {
  return (await stored(t, clock)).sessions
}

async function stored(
  t: ExecutionContext,
  clock: { now: number },
): Promise<{ sessions: SessionSealer; database: SqliteDatabase }> {
  const database = await SqliteDatabase.open(IN_MEMORY)
  t.teardown(() => database[Symbol.asyncDispose]())
  const now = () => new Date(clock.now)
  const sealing = await Sealing.open(database, new LocalKeyWrapper(new Uint8Array(32)), now())
  const place = { database, sealing, tenant: 'default', rotateAfterMs: 60 * MINUTE, now }
  return { sessions: new SessionSealer({ ...place, sessionLifetimeMs: 5 * MINUTE }), database }
}

test('a sealed session opens for its purpose, until it expires', async (t) => {
  const clock = { now: 0 }
  const sessions = await sealer(t, clock)
  const cookie = await sessions.seal('challenge', 5 * MINUTE, { nonce: 'n' })
  t.deepEqual(await sessions.open('challenge', cookie), { nonce: 'n', expiresMs: 5 * MINUTE })
  await t.throwsAsync(sessions.open('attested', cookie), { code: 'ERR_SESSION_INVALID' })
  clock.now = 5 * MINUTE
  await t.throwsAsync(sessions.open('challenge', cookie), { code: 'ERR_SESSION_EXPIRED' })
})

test('the content of a cookie cannot be read without the key', async (t) => {
  const cookie = await (await sealer(t, { now: 0 })).seal('challenge', 1, { secret: 'credential-secret' })
  t.false(Buffer.from(cookie, 'base64url').includes('credential-secret'))
})

test('a cookie changed in any byte, cut at any length or extended does not open', async (t) => {
  const sessions = await sealer(t, { now: 0 })
  const bytes = Buffer.from(await sessions.seal('challenge', 1, { a: 1 }), 'base64url')
  for (let index = 0; index < bytes.length; index++) {
    const changed = Buffer.from(bytes)
    changed[index] = (changed[index] ?? 0) ^ 1
    await t.throwsAsync(sessions.open('challenge', changed.toString('base64url')), { code: 'ERR_SESSION_INVALID' })
    const cut = bytes.subarray(0, index).toString('base64url')
    await t.throwsAsync(sessions.open('challenge', cut), { code: 'ERR_SESSION_INVALID' })
  }
  const extended = Buffer.concat([bytes, Buffer.of(0)]).toString('base64url')
  await t.throwsAsync(sessions.open('challenge', extended), { code: 'ERR_SESSION_INVALID' })
  for (const text of ['not base64!', 'A'.repeat(100_000), '=', '\u{1f600}']) {
    await t.throwsAsync(sessions.open('challenge', text), { code: 'ERR_SESSION_INVALID' })
  }
})

test("another verifier's cookie does not open", async (t) => {
  const clock = { now: 0 }
  const cookie = await (await sealer(t, clock)).seal('challenge', 1, {})
  await t.throwsAsync((await sealer(t, clock)).open('challenge', cookie), { code: 'ERR_SESSION_INVALID' })
})

test('sessions survive the rotation of their key', async (t) => {
  const clock = { now: 0 }
  const sessions = await sealer(t, clock)
  await sessions.seal('challenge', MINUTE, {}) // makes the first key
  clock.now = 59 * MINUTE
  const cookie = await sessions.seal('challenge', 64 * MINUTE, {})
  clock.now = 61 * MINUTE
  const younger = await sessions.seal('challenge', 66 * MINUTE, {})
  await t.notThrowsAsync(sessions.open('challenge', cookie))
  t.not(Buffer.from(cookie, 'base64url').toString('hex', 1, 9), Buffer.from(younger, 'base64url').toString('hex', 1, 9))
})

test('a session whose key the store does not give is told as a failure of the store, not as a forged session', async (t) => {
  const clock = { now: 0 }
  const { sessions, database } = await stored(t, clock)
  const cookie = await sessions.seal('attested', 5 * MINUTE, { id: 'a' })
  clock.now = MINUTE // what was read of the keys before counts no more
  await database[Symbol.asyncDispose]()
  for (const purpose of ['challenge', 'attested']) {
    await t.throwsAsync(sessions.open(purpose, cookie), { instanceOf: UnavailableError, code: 'ERR_STORE_FAILED' })
  }
  await t.throwsAsync(openAttestedSession(sessions, cookie), { code: 'ERR_STORE_FAILED' }, 'nor as no session at all')
  const short = Buffer.from('too short to name a key').toString('base64url')
  await t.throwsAsync(sessions.open('attested', short), { code: 'ERR_SESSION_INVALID' }, 'the store is not asked')
})
