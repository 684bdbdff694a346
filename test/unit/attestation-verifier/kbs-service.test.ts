import test from 'ava'
import fc from 'fast-check'
import { createTeeKeyPair, openSealedResource, type TeeKeyPair } from '#attestation/client/sealed-resource'
import type { AttestationLog } from '#attestation/verifier/attestation-log'
import type { KbsService } from '#attestation/verifier/kbs-service'
import { RecordedError } from '#attestation/verifier/recorded-refusal'
import { CaissonError } from '#protocol/errors'
import { encodeKbsAttestation, type KbsAttestation } from '#protocol/kbs-messages'
import { bench, MINUTE } from './bench.ts'

const REQUEST = Buffer.from('{"version":"0.4.0","tee":"sample","extra-params":""}')
const key: TeeKeyPair = await createTeeKeyPair()

function answerTo(challenge: string, evidence: string): Uint8Array {
  const { nonce }: { nonce: string } = JSON.parse(challenge)
  return answer({ nonce, primaryEvidence: evidence })
}

function answer(parts: Partial<KbsAttestation>): Uint8Array {
  const whole = { nonce: 'n', teePublicKey: key.publicKey, primaryEvidence: 'good', additionalEvidence: '', ...parts }
  return Buffer.from(encodeKbsAttestation(whole))
}

async function attested(kbs: KbsService, evidence = 'good') {
  const challenge = kbs.challenge(REQUEST)
  return await kbs.attest(challenge.cookie, answerTo(challenge.content, evidence))
}

/** Runs `work`, which must be refused, and returns the code and the stored record. */
async function refusal(log: AttestationLog, work: () => unknown) {
  try {
    await work()
  } catch (error) {
    if (error instanceof RecordedError && error.cause instanceof CaissonError) {
      return { code: error.cause.code, record: log.find(error.correlationId) }
    }
    throw error
  }
  throw new Error('was not refused')
}

test('challenge, answer, token, resource', async (t) => {
  const { kbs, audit } = bench(t)
  const { content } = await attested(kbs)
  const jwe = await kbs.resource(['default', 'tls', 'key'], {
    cookie: undefined,
    authorization: `Bearer ${content.token}`,
  })
  const plain = await openSealedResource(Buffer.from(JSON.stringify(jwe)), key.privateKey)
  t.is(Buffer.from(plain).toString(), 'tls key')
  t.deepEqual(
    audit.list(10).map(({ action, subject, verdict }) => [action, subject, verdict]),
    [
      ['resource.release', 'default/tls/key', 'accepted'],
      ['attest', 'guest-1', 'accepted'],
    ],
  )
})

test('the session of an attested guest stands for its token', async (t) => {
  const { kbs, clock, log } = bench(t)
  const { cookie } = await attested(kbs)
  const credentials = { cookie, authorization: undefined }
  await t.notThrowsAsync(kbs.resource(['default', 'tls', 'key'], credentials))
  clock.now += 6 * MINUTE
  const late = await refusal(log, () => kbs.resource(['default', 'tls', 'key'], credentials))
  t.is(late.code, 'ERR_TOKEN_MISSING')
})

test('an answer sent twice is refused the second time, whatever the first verdict was', async (t) => {
  const { kbs, log } = bench(t)
  for (const evidence of ['good', 'bad']) {
    const challenge = kbs.challenge(REQUEST)
    const body = answerTo(challenge.content, evidence)
    await Promise.allSettled([kbs.attest(challenge.cookie, body)])
    t.is((await refusal(log, () => kbs.attest(challenge.cookie, body))).code, 'ERR_CHALLENGE_SPENT')
  }
})

test('of many equal answers sent at once exactly one gets a token', async (t) => {
  const { kbs } = bench(t)
  const challenge = kbs.challenge(REQUEST)
  const body = answerTo(challenge.content, 'good')
  const results = await Promise.allSettled(Array.from({ length: 20 }, () => kbs.attest(challenge.cookie, body)))
  t.is(results.filter(({ status }) => status === 'fulfilled').length, 1)
})

test('an expired session, a foreign one, and none at all are refused', async (t) => {
  const { kbs, log, clock } = bench(t)
  const challenge = kbs.challenge(REQUEST)
  const body = answerTo(challenge.content, 'good')
  t.is((await refusal(log, () => kbs.attest(undefined, body))).code, 'ERR_SESSION_MISSING')
  t.is((await refusal(log, () => kbs.attest(bench(t).kbs.challenge(REQUEST).cookie, body))).code, 'ERR_SESSION_INVALID')
  clock.now += 5 * MINUTE
  t.is((await refusal(log, () => kbs.attest(challenge.cookie, body))).code, 'ERR_SESSION_EXPIRED')
})

test("the answer to one session's challenge is refused in another session", async (t) => {
  const { kbs, log } = bench(t)
  const [first, second] = [kbs.challenge(REQUEST), kbs.challenge(REQUEST)]
  const mixed = await refusal(log, () => kbs.attest(second.cookie, answerTo(first.content, 'good')))
  t.is(mixed.code, 'ERR_NONCE_MISMATCH')
})

test('a refusal is stored claim by claim under the id that the guest is told', async (t) => {
  const { kbs, log } = bench(t)
  const challenge = kbs.challenge(REQUEST)
  const { code, record } = await refusal(log, () => kbs.attest(challenge.cookie, answerTo(challenge.content, 'bad')))
  t.is(code, 'ERR_TEST_REFUSED')
  t.like(record, { stage: 'attest', verdict: 'refused', code: 'ERR_TEST_REFUSED', reason: 'it said bad' })
  t.deepEqual(record?.checks, [{ claim: 'word', expected: 'good', found: 'bad', ok: false, remedy: 'say good' }])
})

test('resources need a token, an affirming one, a name that exists, and the condition met, in this order', async (t) => {
  const { kbs, log } = bench(t)
  const bearer = async (evidence: string) => ({
    cookie: undefined,
    authorization: `Bearer ${(await attested(kbs, evidence)).content.token}`,
  })
  const ask = (path: string, credentials: { cookie: undefined; authorization: string | undefined }) =>
    refusal(log, () => kbs.resource(path.split('/'), credentials))
  const nobody = { cookie: undefined, authorization: undefined }
  t.is((await ask('default/tls/key', nobody)).code, 'ERR_TOKEN_MISSING')
  t.is((await ask('default/tls/missing', await bearer('weak'))).code, 'ERR_RELEASE_NOT_AFFIRMING')
  t.is((await ask('default/tls/missing', await bearer('good'))).code, 'ERR_RESOURCE_NOT_FOUND')
  const early = await ask('default/tls/late', await bearer('good'))
  t.is(early.code, 'ERR_RELEASE_IMAGES')
  t.like(early.record, { stage: 'release', facts: { resource: 'default/tls/late' } })
  t.true(log.handshakeOf(early.record?.id ?? '').some(({ stage }) => stage === 'attest'))
  await t.notThrowsAsync(async () => kbs.resource(['default', 'tls', 'late'], await bearer('images')))
  t.is((await ask('../../x', await bearer('good'))).code, 'ERR_RESOURCE_NAME')
})

for (const version of ['0.1.0', '0.1.1', '0.5.0', '1.0.0', '0.4', '']) {
  test(`protocol version ${JSON.stringify(version)} is refused`, async (t) => {
    const { kbs, log } = bench(t)
    const body = Buffer.from(JSON.stringify({ version, tee: 'sample', 'extra-params': '' }))
    t.is((await refusal(log, () => kbs.challenge(body))).code, 'ERR_KBS_VERSION')
  })
}

for (const version of ['0.2.0', '0.3.0']) {
  test(`a client of protocol version ${version} is served`, async (t) => {
    const { kbs } = bench(t)
    const challenge = kbs.challenge(Buffer.from(JSON.stringify({ version, tee: 'sample', 'extra-params': {} })))
    const { nonce }: { nonce: string } = JSON.parse(challenge.content)
    const runtime = { nonce, 'tee-pubkey': key.publicKey }
    const body = version === '0.2.0' ? { 'tee-pubkey': key.publicKey } : { 'runtime-data': runtime }
    const reply = await kbs.attest(challenge.cookie, Buffer.from(JSON.stringify({ ...body, 'tee-evidence': 'good' })))
    t.regex(reply.content.token, /^[\w-]+\.[\w-]+\.[\w-]+$/)
  })
}

test('a TEE that is not appraised is refused by name', async (t) => {
  const { kbs, log } = bench(t)
  const body = Buffer.from('{"version":"0.4.0","tee":"sgx","extra-params":""}')
  const { code, record } = await refusal(log, () => kbs.challenge(body))
  t.is(code, 'ERR_TEE_UNSUPPORTED')
  t.is(record?.tee, 'sgx')
})

test('hostile bodies are refused as malformed and nothing else happens', async (t) => {
  const { kbs, log } = bench(t)
  const bodies: (string | Uint8Array)[] = [
    ...['', '{', 'null', '[]', '"x"', '1e999', '{"version":1}', '{"version":"0.4.0","tee":"A B","extra-params":""}'],
    ...['['.repeat(50_000), `{"version":"0.4.0","tee":"${'a'.repeat(60_000)}","extra-params":""}`],
    Uint8Array.of(0xff, 0xfe, 0),
  ]
  for (const body of bodies) {
    const { code } = await refusal(log, () => kbs.challenge(Buffer.from(body)))
    t.is(code, 'ERR_KBS_MESSAGE', JSON.stringify(body.slice(0, 20)))
  }
})

test('no answer, however it is cut or filled, ends otherwise than with a recorded verdict', async (t) => {
  const { kbs, log } = bench(t)
  const whole = Buffer.from(answer({})).toString()
  const property = fc.asyncProperty(
    fc.oneof(
      fc.nat(whole.length).map((end) => whole.slice(0, end)),
      fc.json({ maxDepth: 6 }),
    ),
    async (text) => {
      const challenge = kbs.challenge(REQUEST)
      const { code } = await refusal(log, () => kbs.attest(challenge.cookie, Buffer.from(text)))
      return /^ERR_(KBS_MESSAGE|BASE64|NONCE_MISMATCH)$/.test(code)
    },
  )
  await t.notThrowsAsync(fc.assert(property, { numRuns: 60 }))
})
