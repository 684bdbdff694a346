import test, { type ExecutionContext } from 'ava'
import { Database, IN_MEMORY } from '#attestation/verifier/database'
import { SessionSealer } from '#attestation/verifier/session-seal'

const MINUTE = 60_000

function sealer(t: ExecutionContext, clock: { now: number }, database = Database.open(IN_MEMORY)): SessionSealer {
  t.teardown(() => database[Symbol.dispose]())
  return new SessionSealer({
    database,
    rotateAfterMs: 60 * MINUTE,
    sessionLifetimeMs: 5 * MINUTE,
    now: () => new Date(clock.now),
  })
}

test('a sealed session opens for its purpose, until it expires', (t) => {
  const clock = { now: 0 }
  const sessions = sealer(t, clock)
  const cookie = sessions.seal('challenge', 5 * MINUTE, { nonce: 'n' })
  t.deepEqual(sessions.open('challenge', cookie), { nonce: 'n', expiresMs: 5 * MINUTE })
  t.throws(() => sessions.open('attested', cookie), { code: 'ERR_SESSION_INVALID' })
  clock.now = 5 * MINUTE
  t.throws(() => sessions.open('challenge', cookie), { code: 'ERR_SESSION_EXPIRED' })
})

test('the content of a cookie cannot be read without the key', (t) => {
  const cookie = sealer(t, { now: 0 }).seal('challenge', 1, { secret: 'credential-secret' })
  t.false(Buffer.from(cookie, 'base64url').includes('credential-secret'))
})

test('a cookie changed in any byte, cut at any length or extended does not open', (t) => {
  const sessions = sealer(t, { now: 0 })
  const bytes = Buffer.from(sessions.seal('challenge', 1, { a: 1 }), 'base64url')
  for (let index = 0; index < bytes.length; index++) {
    const changed = Buffer.from(bytes)
    changed[index] = (changed[index] ?? 0) ^ 1
    t.throws(() => sessions.open('challenge', changed.toString('base64url')), { code: 'ERR_SESSION_INVALID' })
    const cut = bytes.subarray(0, index).toString('base64url')
    t.throws(() => sessions.open('challenge', cut), { code: 'ERR_SESSION_INVALID' })
  }
  const extended = Buffer.concat([bytes, Buffer.of(0)]).toString('base64url')
  t.throws(() => sessions.open('challenge', extended), { code: 'ERR_SESSION_INVALID' })
  for (const text of ['not base64!', 'A'.repeat(100_000), '=', '\u{1f600}']) {
    t.throws(() => sessions.open('challenge', text), { code: 'ERR_SESSION_INVALID' })
  }
})

test("another verifier's cookie does not open", (t) => {
  const clock = { now: 0 }
  const cookie = sealer(t, clock).seal('challenge', 1, {})
  t.throws(() => sealer(t, clock).open('challenge', cookie), { code: 'ERR_SESSION_INVALID' })
})

test('sessions survive the rotation of their key', (t) => {
  const clock = { now: 0 }
  const sessions = sealer(t, clock)
  sessions.seal('challenge', MINUTE, {}) // makes the first key
  clock.now = 59 * MINUTE
  const cookie = sessions.seal('challenge', 64 * MINUTE, {})
  clock.now = 61 * MINUTE
  const younger = sessions.seal('challenge', 66 * MINUTE, {})
  t.notThrows(() => sessions.open('challenge', cookie))
  t.not(Buffer.from(cookie, 'base64url').toString('hex', 1, 9), Buffer.from(younger, 'base64url').toString('hex', 1, 9))
})
