import test, { type ExecutionContext } from 'ava'
import { Attester } from '#attestation/client/attester'
import type { EvidenceSource } from '#attestation/client/evidence-source'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import { createRouter } from '#attestation/verifier/routes'
import { UnavailableError } from '#protocol/errors'
import type { HttpRequest, HttpResponse, HttpTransport } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import { MINUTE, type ServedTenant, serveTenant } from './served-tenant.ts'

const INITDATA = new TextEncoder().encode('version = "0.1.0"\nalgorithm = "sha256"\n')

/** The verifier's routes behind the guest's transport, without a network; `disturb` may answer in its place. */
class DirectTransport implements HttpTransport {
  readonly requests: string[] = []
  readonly #answer: ReturnType<typeof createRouter>
  readonly #disturb: (path: string, count: number) => HttpResponse | undefined

  constructor(served: ServedTenant, disturb: (path: string, count: number) => HttpResponse | undefined) {
    const now = () => new Date(served.clock.now)
    this.#answer = createRouter({
      ...served,
      ready: async () => true,
      secureCookies: true,
      now,
      onInternalError: () => {},
    })
    this.#disturb = disturb
  }

  async request(request: HttpRequest): Promise<HttpResponse> {
    const { pathname } = new URL(request.url)
    this.requests.push(pathname)
    const disturbed = this.#disturb(pathname, this.requests.filter((path) => path === pathname).length)
    if (disturbed !== undefined) return disturbed
    const { body } = request
    const reply = await this.#answer({
      method: request.method,
      segments: pathname.slice(1).split('/'),
      query: new URLSearchParams(),
      headers: request.headers ?? {},
      body: async () => (body instanceof Uint8Array ? body : new Uint8Array()),
    })
    const bytes = reply.body instanceof Uint8Array ? reply.body : Buffer.from(JSON.stringify(reply.body ?? ''))
    return response(reply.status, bytes, reply.headers)
  }

  async close(): Promise<void> {}
}

function response(status: number, body: Uint8Array | string, headers: Record<string, string> = {}): HttpResponse {
  return {
    status,
    headers,
    body: (async function* () {
      yield typeof body === 'string' ? Buffer.from(body) : body
    })(),
  }
}

async function guest(
  t: ExecutionContext,
  disturb: (path: string, count: number) => HttpResponse | undefined = () => undefined,
) {
  const served = await serveTenant(t)
  const http = new DirectTransport(served, disturb)
  const pauses: number[] = []
  const said = { evidence: 'good', disposed: 0 }
  const evidence: EvidenceSource = {
    prepare: async () => ({
      request: { tee: 'sample' },
      answer: async ({ images }) => (images.length > 0 ? 'images' : said.evidence),
      [Symbol.asyncDispose]: async () => void said.disposed++,
    }),
  }
  const attester = new Attester({
    http,
    crypto: nodeCrypto,
    evidence,
    url: 'https://verifier.test/',
    now: () => new Date(served.clock.now),
    backOff: { attempts: 4, firstDelayMs: 100, maxDelayMs: 300 },
    sleep: async (ms) => void pauses.push(ms),
  })
  return { ...served, http, pauses, said, attester }
}

test('a guest attests, learns the time, and gets its resource in the clear', async (t) => {
  const { attester, clock, said } = await guest(t)
  const result = await attester.attest({ initdataToml: INITDATA })
  t.is(result.signedTime.getTime(), clock.now)
  t.is(result.expiresAt.getTime(), clock.now + 5 * MINUTE)
  t.is(Buffer.from(await attester.getResource('default/tls/key')).toString(), 'tls key')
  t.is(said.disposed, 1)
})

test('resources come before nothing: the first attestation has to be asked for', async (t) => {
  await t.throwsAsync((await guest(t)).attester.getResource('default/tls/key'), { code: 'ERR_NOT_ATTESTED' })
})

test('an expired token is renewed with the images of the last attestation', async (t) => {
  const { attester, clock, http } = await guest(t)
  const digest = `sha256:${'a'.repeat(64)}`
  const images = [{ container: 'web', manifest: digest, config: digest, diffIds: [] }]
  await attester.attest({ initdataToml: INITDATA, images })
  clock.now += 6 * MINUTE
  t.is(Buffer.from(await attester.getResource('default/tls/late')).toString(), 'late')
  t.is(http.requests.filter((path) => path.endsWith('/attest')).length, 2)
})

test('a token that only the verifier finds expired is renewed too', async (t) => {
  const { attester, http } = await guest(t, (path, count) =>
    path.includes('/resource/') && count === 1
      ? response(401, '{"type":"x/TokenVerifierError","detail":"d","code":"ERR_TOKEN_EXPIRED","correlation_id":"c"}')
      : undefined,
  )
  await attester.attest({ initdataToml: INITDATA })
  await attester.getResource('default/tls/key')
  t.is(http.requests.filter((path) => path.endsWith('/attest')).length, 2)
})

test('a verifier that never accepts a token is given up, not asked for ever', async (t) => {
  const { attester, http } = await guest(t, (path) =>
    path.includes('/resource/') ? response(401, '{"type":"https://x/TokenNotFound","detail":"d"}') : undefined,
  )
  await attester.attest({ initdataToml: INITDATA })
  const error = await t.throwsAsync(attester.getResource('default/tls/key'), { instanceOf: VerifierRefusal })
  t.is(error?.refusal.code, 'TokenNotFound')
  t.is(http.requests.filter((path) => path.endsWith('/attest')).length, 4)
})

test('a verifier that is away is tried again with growing pauses, each time from the start', async (t) => {
  const { attester, pauses, said } = await guest(t, (path, count) =>
    path.endsWith('/attest') && count <= 2 ? response(503, '') : undefined,
  )
  await attester.attest({ initdataToml: INITDATA })
  t.deepEqual(pauses, [100, 200])
  t.is(said.disposed, 3)
})

test('a verifier that stays away is reported as unavailable', async (t) => {
  const { attester, pauses } = await guest(t, () => {
    throw new UnavailableError('ERR_HTTP_CONNECT', 'no connection')
  })
  await t.throwsAsync(attester.attest({ initdataToml: INITDATA }), { code: 'ERR_VERIFIER_UNAVAILABLE' })
  t.deepEqual(pauses, [100, 200, 300])
})

test('a server that is not the verifier is not tried again', async (t) => {
  const { attester, pauses } = await guest(t, () => {
    throw new UnavailableError('ERR_HTTP_TLS', 'self-signed certificate')
  })
  await t.throwsAsync(attester.attest({ initdataToml: INITDATA }), { code: 'ERR_VERIFIER_TLS' })
  t.deepEqual(pauses, [])
})

test('an answer whose receipt was lost is not sent twice: the guest starts again', async (t) => {
  const lost = { once: true }
  const { attester, kbs } = await guest(t)
  const attest = kbs.attest.bind(kbs)
  kbs.attest = async (...input) => {
    const reply = await attest(...input)
    if (lost.once) {
      lost.once = false
      throw new UnavailableError('ERR_STORE_BUSY', 'after the commit')
    }
    return reply
  }
  await t.notThrowsAsync(attester.attest({ initdataToml: INITDATA }))
})

test('a refusal carries code and correlation id, and no reason', async (t) => {
  const { attester, said, log, pauses } = await guest(t)
  said.evidence = 'bad'
  const error = await t.throwsAsync(attester.attest({ initdataToml: INITDATA }), { instanceOf: VerifierRefusal })
  t.is(error?.refusal.code, 'ERR_TEST_REFUSED')
  t.is((await log.find(error?.refusal.correlationId ?? ''))?.reason, 'it said bad')
  t.false(error?.message.includes('it said bad'))
  t.deepEqual(pauses, [])
})

const garbage: [string, HttpResponse][] = [
  ['text', response(200, 'hello')],
  ['an empty body', response(200, '')],
  ['no token', response(200, '{"token":7}')],
  ['a token that is none', response(200, '{"token":"a.b.c"}')],
  ['a token without claims', response(200, `{"token":"e30.${Buffer.from('{}').toString('base64url')}.x"}`)],
  ['a body without end', response(200, new Uint8Array(200_000))],
  ['bytes that are not UTF-8', response(200, Uint8Array.of(0xff))],
  ['a page of a proxy', response(403, '<html>')],
  ['a redirect', response(302, '', { location: 'https://elsewhere.test/' })],
  ['an empty problem', response(401, '{}')],
]
for (const [what, reply] of garbage) {
  test(`${what} in place of a token is reported as a wrong answer`, async (t) => {
    const { attester } = await guest(t, (path) => (path.endsWith('/attest') ? reply : undefined))
    await t.throwsAsync(attester.attest({ initdataToml: INITDATA }), { code: 'ERR_VERIFIER_ANSWER' })
  })
}

test('a challenge without a cookie, or without a nonce, is reported as a wrong answer', async (t) => {
  for (const reply of [
    response(200, '{"nonce":"n","extra-params":""}'),
    response(200, '{}', { 'set-cookie': 'kbs-session-id=x' }),
  ]) {
    const { attester } = await guest(t, (path) => (path.endsWith('/auth') ? reply : undefined))
    await t.throwsAsync(attester.attest({ initdataToml: INITDATA }), { code: 'ERR_VERIFIER_ANSWER' })
  }
})

test("another guest's token is not taken for ours", async (t) => {
  const other = await guest(t)
  const { token } = await other.attester.attest({ initdataToml: INITDATA })
  const { attester } = await guest(t, (path) =>
    path.endsWith('/attest') ? response(200, JSON.stringify({ token })) : undefined,
  )
  await t.throwsAsync(attester.attest({ initdataToml: INITDATA }), {
    code: 'ERR_VERIFIER_ANSWER',
    message: /another guest/,
  })
})

test('whoever plays the verifier with a stale session gets no attested guest', async (t) => {
  for (const replayed of [['/auth'], ['/auth', '/attest']]) {
    const recorded = new Map<string, HttpResponse>()
    let replay = false
    const part = (path: string): string => replayed.find((name) => path.endsWith(name)) ?? 'another'
    const { attester, http } = await guest(t, (path) =>
      replay && part(path) !== 'another' ? recorded.get(part(path)) : undefined,
    )
    const request = http.request.bind(http)
    http.request = async (asked) => {
      const { status, headers, body } = await request(asked)
      const chunks: Uint8Array[] = []
      for await (const chunk of body) chunks.push(chunk)
      const whole = { status, headers, body: { [Symbol.asyncIterator]: () => once(Buffer.concat(chunks)) } }
      if (!replay) recorded.set(part(new URL(asked.url).pathname), whole)
      return whole
    }
    const first = await attester.attest({ initdataToml: INITDATA })
    replay = true
    const error = await t.throwsAsync<Error & { code?: string; refusal?: { code: string } }>(
      attester.attest({ initdataToml: INITDATA }),
    )
    // The true verifier has seen this challenge; a recorded token is for the key of the recorded session.
    t.is(
      replayed.length === 1 ? error?.refusal?.code : error?.code,
      replayed.length === 1 ? 'ERR_CHALLENGE_SPENT' : 'ERR_VERIFIER_ANSWER',
    )
    t.true(first.token.length > 0)
  }
})

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

test('a verifier that is too slow, or breaks off, is asked again and then reported as unavailable', async (t) => {
  for (const code of ['ERR_HTTP_STALLED', 'ERR_HTTP_CUT']) {
    const { attester, pauses } = await guest(t, (path) => {
      if (!path.endsWith('/attest')) return undefined
      const body = (async function* () {
        yield Buffer.from('{"tok')
        throw new UnavailableError(code, 'no byte came within the time allowed')
      })()
      return { status: 200, headers: {}, body }
    })
    const error = await t.throwsAsync(attester.attest({ initdataToml: INITDATA }), { code: 'ERR_VERIFIER_UNAVAILABLE' })
    t.regex(error?.message ?? '', /verifier\.test does not answer/)
    t.deepEqual(pauses, [100, 200, 300])
  }
})

test('handshakes asked for at once run one after the other', async (t) => {
  const { attester, http } = await guest(t)
  await Promise.all([1, 2, 3].map(() => attester.attest({ initdataToml: INITDATA })))
  const order = http.requests.map((path) => path.split('/').at(-1))
  t.deepEqual(order, ['auth', 'attest', 'auth', 'attest', 'auth', 'attest'])
})

test('a resource name that is none is not sent', async (t) => {
  const { attester, http } = await guest(t)
  await attester.attest({ initdataToml: INITDATA })
  const sent = http.requests.length
  for (const path of ['a/b', 'a/b/c/d', '../b/c', 'a/b/c?x=1', 'a/b/c\r\n']) {
    await t.throwsAsync(attester.getResource(path), { code: 'ERR_RESOURCE_NAME' })
  }
  t.is(http.requests.length, sent)
})

test('a resource that was changed on the way is refused', async (t) => {
  const { attester } = await guest(t, (path) =>
    path.includes('/resource/')
      ? response(200, '{"protected":"e30","encrypted_key":"","iv":"","ciphertext":"","tag":""}')
      : undefined,
  )
  await attester.attest({ initdataToml: INITDATA })
  await t.throwsAsync(attester.getResource('default/tls/key'), { code: 'ERR_RESOURCE_SEAL' })
})
