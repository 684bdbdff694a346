/** Metrics and log lines: what is counted, and what strangers cannot put there. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { BUILT_IN, Metrics, routeOf } from '#attestation/verifier/metrics'
import { requestLogLine } from '#attestation/verifier/request-log'

const exchangeOf = (method: string, path: string) => ({
  method,
  segments: path.slice(1).split('/'),
  query: new URLSearchParams(),
  headers: {},
  body: async () => new Uint8Array(),
})

for (const [method, path, route] of [
  ['POST', '/kbs/v0/auth', 'POST /kbs/v0/auth'],
  ['POST', '/t/shop/kbs/v0/attest', 'POST /kbs/v0/attest'],
  ['GET', '/kbs/v0/resource/a/b/c', 'GET /kbs/v0/resource/*'],
  ['GET', '/healthz', 'GET /healthz'],
  ['GET', '/t/shop/.well-known/jwks.json', 'GET /.well-known/jwks.json'],
  ['BREW', '/kbs/v0/coffee', 'OTHER other'],
  ['GET', '/kbs/v0/resource"} 1\nkbs_evil 1', 'GET other'],
  ['GET', '/../../etc/passwd', 'GET other'],
] as const) {
  test(`${method} ${JSON.stringify(path)} is counted as ${route}`, (t) => {
    t.is(routeOf(exchangeOf(method, path)), route)
  })
}

test('requests are counted by route and status, with their durations, and nothing strangers wrote', async (t) => {
  const metrics = new Metrics(() => ({ collateral_fetched: 3 }))
  const statuses = [200, 200, 401, 500]
  const answer = metrics.observing(
    async () => ({ status: statuses.shift() ?? 404 }),
    () => {},
  )
  for (let count = 0; count < 4; count++) await answer(exchangeOf('POST', '/kbs/v0/attest'))
  for (let count = 0; count < 50; count++) await answer(exchangeOf('GET', `/kbs/v0/${'x'.repeat(count)}"\n`))
  const text = metrics.render()
  t.regex(text, /^kbs_http_requests_total\{route="POST \/kbs\/v0\/attest",status="200"\} 2$/m)
  t.regex(text, /^kbs_attestation_requests_total 4$/m)
  t.regex(text, /^kbs_attestation_successes_total 2$/m)
  t.regex(text, /^kbs_attestation_failures_total 1$/m)
  t.regex(text, /^kbs_attestation_errors_total 1$/m)
  t.regex(text, /^kbs_http_request_duration_seconds_count\{route="POST \/kbs\/v0\/attest"\} 4$/m)
  t.regex(text, /^kbs_http_active_connections 0$/m)
  t.regex(text, /^caisson_verifier_collateral_fetched 3$/m)
  t.is([...text.matchAll(/route="GET other"/g)].length, 1 + 12 + 3, 'one route for all that nobody serves')
  for (const line of text.trimEnd().split('\n'))
    t.regex(line, /^(# TYPE [a-z_]+ [a-z]+|[a-z_]+(\{[^{}\n]*\})? [-+0-9.e]+)$/)
})

test('a log line holds nothing that strangers wrote, and the id that leads the tenant to the reason', (t) => {
  const at = new Date('2026-01-01T00:00:00Z')
  const observation = { route: 'POST /kbs/v0/attest', status: 401, seconds: 0.01234 }
  const body = { code: 'ERR_NONCE_MISMATCH', correlation_id: 'a'.repeat(24), detail: 'secret' }
  t.deepEqual(requestLogLine(exchangeOf('POST', '/t/shop/kbs/v0/attest'), { status: 401, body }, observation, at), {
    time: '2026-01-01T00:00:00.000Z',
    route: 'POST /kbs/v0/attest',
    status: 401,
    ms: 12.3,
    tenant: 'shop',
    code: 'ERR_NONCE_MISMATCH',
    correlationId: 'a'.repeat(24),
  })
  const hostile = { code: 'ERR_X\n{"forged":true}', correlation_id: '"}' }
  const line = requestLogLine(
    exchangeOf('GET', '/t/x"\n/kbs/v0/auth?a'),
    { status: 400, body: hostile },
    observation,
    at,
  )
  t.deepEqual(Object.keys(line), ['time', 'route', 'status', 'ms'])
  const token = requestLogLine(
    exchangeOf('POST', '/kbs/v0/attest'),
    { status: 200, body: { token: 'eyJ' } },
    observation,
    at,
  )
  t.false(JSON.stringify(token).includes('eyJ'))
})

test('every path that the verifier serves has a name of its own in metrics, and no plugin can take it', (t) => {
  const routes = readFileSync(new URL('../../../attestation/verifier/routes.ts', import.meta.url), 'utf8')
  const names = [...routes.matchAll(/case '(?:GET|POST|DELETE) ([a-z-]+)[ '/]/g)].map(([, name = '']) => name)
  t.true(names.length > 25)
  t.deepEqual(
    names.filter((name) => !BUILT_IN.has(name)),
    [],
  )
})
