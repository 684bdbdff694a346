import { readFileSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { decodeProtectedHeader, exportJWK, generateKeyPair, type JWK, SignJWT, UnsecuredJWT } from 'jose'
import { AttestationLog } from '#attestation/store/attestation-log'
import { LocalKeyWrapper } from '#attestation/store/key-wrapper'
import { Sealing } from '#attestation/store/sealing'
import { IN_MEMORY, SqliteDatabase } from '#attestation/store/sqlite'
import { earClaims } from '#attestation/token/ear'
import { statusOf, type TrustTier, tierOf, tpmTrustVector } from '#attestation/token/trust-vector'
import { verifyToken } from '#attestation/token/verify-token'
import { GuestClaims } from '#attestation/verifier/guest-claims'
import { SessionSealer } from '#attestation/verifier/session-seal'
import { TokenIssuer } from '#attestation/verifier/token-issuer'
import { CaissonError } from '#protocol/errors'

const MINUTE = 60_000
const ISSUER = 'caisson-verifier'

async function issuerAt(t: ExecutionContext, clock: { now: number }): Promise<TokenIssuer> {
  return (await issuersAt(t, clock))()
}

/** Issuers of several processes on one store. */
async function issuersAt(t: ExecutionContext, clock: { now: number }): Promise<() => TokenIssuer> {
  const database = await SqliteDatabase.open(IN_MEMORY)
  t.teardown(() => database[Symbol.asyncDispose]())
  const now = () => new Date(clock.now)
  const sealing = await Sealing.open(database, new LocalKeyWrapper(new Uint8Array(32)), now())
  return () =>
    new TokenIssuer({
      ...{ database, sealing, tenant: 'default', now },
      rotateAfterMs: 60 * MINUTE,
      tokenLifetimeMs: 5 * MINUTE,
    })
}

function claims(clock: { now: number }) {
  const iat = Math.floor(clock.now / 1000)
  return { iss: ISSUER, iat, exp: iat + 300, sub: 'x' }
}

test('a token verifies with the published keys until it expires', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  const token = await tokens.sign(claims(clock), 'JWT')
  const input = { token, keys: await tokens.publishedKeys(), issuer: ISSUER }
  t.is(verifyToken({ ...input, now: new Date(clock.now) }).sub, 'x')
  t.throws(() => verifyToken({ ...input, now: new Date(clock.now + 5 * MINUTE) }), { code: 'ERR_TOKEN_EXPIRED' })
})

test('processes that start together on an empty store publish the key that they sign with', async (t) => {
  const clock = { now: 1_000_000_000 }
  const start = await issuersAt(t, clock)
  const processes = [start(), start(), start()]
  const tokens = await Promise.all(processes.map((each) => each.sign(claims(clock), 'JWT')))
  for (const [index, each] of processes.entries()) {
    const [token = '', keys] = [tokens[index], await each.publishedKeys()]
    t.is(verifyToken({ token, keys, issuer: ISSUER, now: new Date(clock.now) }).sub, 'x')
  }
})

test('a token of a key that another process made a moment ago is believed', async (t) => {
  const clock = { now: 1_000_000_000 }
  const database = await SqliteDatabase.open(IN_MEMORY)
  t.teardown(() => database[Symbol.asyncDispose]())
  const now = () => new Date(clock.now)
  const sealing = await Sealing.open(database, new LocalKeyWrapper(new Uint8Array(32)), now())
  const place = { database, sealing, tenant: 'default', now, rotateAfterMs: 60 * MINUTE }
  const start = () => new TokenIssuer({ ...place, tokenLifetimeMs: 5 * MINUTE })
  const [there, here] = [start(), start()]
  const sealer = new SessionSealer({ ...place, sessionLifetimeMs: 5 * MINUTE })
  const log = new AttestationLog(database, { tenant: 'default', keep: 10 })
  const guests = new GuestClaims({ sealer, tokens: here, log, issuer: ISSUER, now })
  t.is((await here.publishedKeys()).keys.length, 1)
  await there.rotate()
  const token = await there.sign(claims(clock), 'JWT')
  t.is((await guests.find({ cookie: undefined, authorization: `Bearer ${token}` })).sub, 'x')
  const stranger = await (await issuerAt(t, clock)).sign(claims(clock), 'JWT')
  await t.throwsAsync(guests.find({ cookie: undefined, authorization: `Bearer ${stranger}` }), {
    code: 'ERR_TOKEN_UNKNOWN_KEY',
  })
})

test('the header names the key and carries its public half alone', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  const header = decodeProtectedHeader(await tokens.sign(claims(clock), 'JWT'))
  t.is(header.alg, 'ES256')
  t.deepEqual(Object.keys(header.jwk ?? {}).sort(), ['crv', 'kty', 'x', 'y'])
  for (const key of (await tokens.publishedKeys()).keys) t.false('d' in key)
})

test('old keys are published until the last token they signed has expired', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  await tokens.publishedKeys() // makes the first key
  clock.now += 59 * MINUTE
  const token = await tokens.sign(claims(clock), 'JWT')
  clock.now += 4 * MINUTE
  t.is((await tokens.publishedKeys()).keys.length, 2)
  const both = await tokens.publishedKeys()
  t.notThrows(() => verifyToken({ token, keys: both, issuer: ISSUER, now: new Date(clock.now) }))
  clock.now += 3 * MINUTE
  t.is((await tokens.publishedKeys()).keys.length, 1)
})

test('rotating at once does not invalidate tokens that are out', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  const token = await tokens.sign(claims(clock), 'JWT')
  await tokens.rotate()
  const keys = await tokens.publishedKeys()
  t.is(keys.keys.length, 2)
  t.notThrows(() => verifyToken({ token, keys, issuer: ISSUER, now: new Date(clock.now) }))
  t.not(decodeProtectedHeader(await tokens.sign(claims(clock), 'JWT')).kid, decodeProtectedHeader(token).kid)
})

test('a token of another key is refused, also when its header carries that key', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  const attacker = await generateKeyPair('ES256', { extractable: true })
  const jwk: JWK = await exportJWK(attacker.publicKey)
  const [known] = (await tokens.publishedKeys()).keys
  const sign = (header: object) =>
    new SignJWT(claims(clock))
      .setProtectedHeader({ alg: 'ES256', typ: 'JWT', jwk, ...header })
      .sign(attacker.privateKey)
  const input = { keys: await tokens.publishedKeys(), issuer: ISSUER, now: new Date(clock.now) }
  const theirs = await sign({ kid: 'theirs' })
  t.throws(() => verifyToken({ ...input, token: theirs }), { code: 'ERR_TOKEN_UNKNOWN_KEY' })
  const nameless = await sign({})
  t.throws(() => verifyToken({ ...input, token: nameless }), { code: 'ERR_TOKEN_UNKNOWN_KEY' })
  const forged = await sign({ kid: known?.kid })
  t.throws(() => verifyToken({ ...input, token: forged }), { code: 'ERR_TOKEN_SIGNATURE' })
})

test('the algorithm cannot be confused: none, HS256 with the public key, other types and issuers are refused', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  const keys = await tokens.publishedKeys()
  const input = { keys, issuer: ISSUER, now: new Date(clock.now) }
  const none = new UnsecuredJWT(claims(clock)).encode()
  t.throws(() => verifyToken({ ...input, token: none }), { code: 'ERR_TOKEN_SIGNATURE' })
  const secret = Buffer.from(JSON.stringify(keys.keys[0]))
  const hs256 = await new SignJWT(claims(clock)).setProtectedHeader({ alg: 'HS256', typ: 'JWT' }).sign(secret)
  t.throws(() => verifyToken({ ...input, token: hs256 }), { code: 'ERR_TOKEN_SIGNATURE' })
  const time = await tokens.sign(claims(clock), 'time+jwt')
  t.throws(() => verifyToken({ ...input, token: time }), { code: 'ERR_TOKEN_CLAIMS' })
  t.notThrows(() => verifyToken({ ...input, token: time, type: 'time+jwt' }))
  const other = await tokens.sign({ ...claims(clock), iss: 'another' }, 'JWT')
  t.throws(() => verifyToken({ ...input, token: other }), { code: 'ERR_TOKEN_CLAIMS' })
  const audience = { ...input, token: await tokens.sign(claims(clock), 'JWT'), audience: 'me' }
  t.throws(() => verifyToken(audience), { code: 'ERR_TOKEN_CLAIMS' })
  for (const token of ['', 'a.b.c', '..', 'x'.repeat(100_000)]) {
    t.throws(() => verifyToken({ ...input, token }), { code: 'ERR_TOKEN_MALFORMED' })
  }
})

test('whatever is changed in a token, it does not hold any more', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  const token = await tokens.sign(claims(clock), 'JWT')
  const input = { keys: await tokens.publishedKeys(), issuer: ISSUER, now: new Date(clock.now) }
  t.is(verifyToken({ ...input, token }).sub, 'x')
  for (let at = 0; at < token.length; at++) {
    const other = token[at] === 'A' ? 'Q' : 'A'
    const changed = `${token.slice(0, at)}${other}${token.slice(at + 1)}`
    t.throws(() => verifyToken({ ...input, token: changed }), { instanceOf: CaissonError }, `character ${at}`)
  }
  for (const changed of [`${token}=`, `${token}.`, ` ${token}`, token.slice(0, -4), `${token}AAAA`]) {
    t.throws(() => verifyToken({ ...input, token: changed }), { instanceOf: CaissonError }, changed)
  }
})

test('extensions of the header, and claims of the wrong kind or time, are refused', async (t) => {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
  const keys = { keys: [{ ...(await exportJWK(publicKey)), kid: 'k', alg: 'ES256', use: 'sig' }] }
  const clock = { now: 1_000_000_000 }
  const input = { keys, issuer: ISSUER, now: new Date(clock.now) }
  const sign = (header: object, more: object) =>
    new SignJWT({ ...claims(clock), ...more })
      .setProtectedHeader({ alg: 'ES256', typ: 'JWT', kid: 'k', ...header })
      .sign(privateKey, { crit: { x: false } })
  const good = await sign({}, { nbf: 999_999, aud: ['you', 'me'] })
  t.notThrows(() => verifyToken({ ...input, token: good, audience: 'me' }))
  const extended = await sign({ crit: ['x'], x: 1 }, {})
  t.throws(() => verifyToken({ ...input, token: extended }), { code: 'ERR_TOKEN_MALFORMED' })
  for (const more of [
    { nbf: 1_000_001 },
    { exp: '2000000' },
    { exp: undefined },
    { iat: undefined },
    { iss: undefined },
  ]) {
    const token = await sign({}, more)
    t.throws(() => verifyToken({ ...input, token }), { code: 'ERR_TOKEN_CLAIMS' }, JSON.stringify(more))
  }
  const encryption = { keys: keys.keys.map((key) => ({ ...key, use: 'enc' })) }
  t.throws(() => verifyToken({ ...input, keys: encryption, token: good }), { code: 'ERR_TOKEN_UNKNOWN_KEY' })
})

test('keys that are withdrawn verify nothing any more, those that are new at once', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  const before = await tokens.publishedKeys()
  t.is(await tokens.publishedKeys(), before, 'the same keys are read once')
  const old = await tokens.sign(claims(clock), 'JWT')
  await tokens.rotate()
  const at = { issuer: ISSUER, now: new Date(clock.now) }
  const token = await tokens.sign(claims(clock), 'JWT')
  t.throws(() => verifyToken({ ...at, token, keys: before }), { code: 'ERR_TOKEN_UNKNOWN_KEY' })
  const after = await tokens.publishedKeys()
  t.notThrows(() => verifyToken({ ...at, token, keys: after }))
  t.notThrows(() => verifyToken({ ...at, token: old, keys: after }))
  clock.now += 70 * MINUTE
  await tokens.rotate()
  const later = await tokens.publishedKeys()
  t.throws(() => verifyToken({ ...at, token: old, keys: later }), { code: 'ERR_TOKEN_UNKNOWN_KEY' })
})

test('tiers have the limits of AR4SI, negative values included', (t) => {
  const limits: [number, TrustTier][] = [
    [-128, 'contraindicated'],
    [-97, 'contraindicated'],
    [-96, 'warning'],
    [-33, 'warning'],
    [-32, 'affirming'],
    [-2, 'affirming'],
    [-1, 'none'],
    [0, 'none'],
    [1, 'none'],
    [2, 'affirming'],
    [31, 'affirming'],
    [32, 'warning'],
    [95, 'warning'],
    [96, 'contraindicated'],
    [127, 'contraindicated'],
  ]
  for (const [value, tier] of limits) t.is(tierOf(value), tier, `${value}`)
})

test('the recorded token of the reference server has the status that its vector adds up to', (t) => {
  const path = '../../vectors/kbs/trustee/attestation-service/docs/example.token.json'
  const token = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8'))
  const { 'ear.status': status, 'ear.trustworthiness-vector': vector } = token.submods.cpu0
  t.is(statusOf(vector), status)
})

test('a TPM makes no claim about hardware, and the second token covers what runs', (t) => {
  t.is(tpmTrustVector(false).hardware, 0)
  t.is(tpmTrustVector(false)['runtime-opaque'], 0)
  t.is(tpmTrustVector(false).executables, 3)
  t.is(tpmTrustVector(true).executables, 2)
  t.is(statusOf(tpmTrustVector(false)), 'affirming')
})

test('claims have the shape that the reference server gives its tokens', (t) => {
  const path = '../../vectors/kbs/trustee/attestation-service/docs/example.token.json'
  const recorded = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8'))
  const teePublicKey = { kty: 'EC', crv: 'P-256', alg: 'ECDH-ES+A256KW', x: 'x', y: 'y' } as const
  const images = [{ container: 'web', manifest: 'sha256:m', config: 'sha256:c', diffIds: ['sha256:d'] }]
  const facts = {
    issuer: ISSUER,
    attestationId: 'a1',
    issuedAt: new Date(1_500),
    lifetimeMs: 300_000,
    vector: tpmTrustVector(true),
    referenceId: 'guest-1',
    policyId: 'strict',
    reportData: '00',
    nonce: 'n',
    teePublicKey,
    initdataDigest: '11',
    tee: 'tpm',
    teeClaims: { pcrs: {} },
  }
  const first = earClaims({ ...facts, images: [] })
  t.is(first.iat, 1)
  t.is(first.exp, 301)
  t.is(first.eat_profile, recorded.eat_profile)
  t.false('caisson.images' in first)
  for (const name of Object.keys(recorded.submods.cpu0)) t.true(name in first.submods.cpu0, name)
  const second = earClaims({ ...facts, images })
  t.deepEqual(second['caisson.images'], [{ container: 'web', manifest: 'sha256:m', config: 'sha256:c' }])
})

test('a key that a token brings verifies nothing, also when its certificates lead to a root', async (t) => {
  const clock = { now: 1_000_000_000 }
  const tokens = await issuerAt(t, clock)
  const keys = await tokens.publishedKeys()
  const vector = (path: string): string => readFileSync(new URL(`../../vectors/${path}`, import.meta.url), 'utf8')
  const { jwk_endorsement: scenarios }: { jwk_endorsement: readonly { jwk: string; ok: boolean }[] } = JSON.parse(
    vector('kbs/_expected/trustee-tests.json'),
  )
  t.deepEqual(
    scenarios.map(({ ok }) => ok),
    [true, false, false, false],
  )
  for (const { jwk } of scenarios) {
    const brought: JWK = JSON.parse(vector(jwk))
    const { privateKey } = await generateKeyPair('ES256')
    const header = {
      alg: 'ES256',
      typ: 'JWT',
      jwk: brought,
      ...(brought.kid === undefined ? {} : { kid: brought.kid }),
    }
    const token = await new SignJWT(claims(clock)).setProtectedHeader(header).sign(privateKey)
    const verified = (): unknown => verifyToken({ token, keys, issuer: ISSUER, now: new Date(clock.now) })
    t.throws(verified, { code: 'ERR_TOKEN_UNKNOWN_KEY' })
  }
})
