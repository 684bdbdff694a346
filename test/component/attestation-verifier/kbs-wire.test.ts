/** The KBS protocol on the wire: versions as other clients speak them, and what hostile ones try. */
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { calculateJwkThumbprint, decodeProtectedHeader, exportJWK, generateKeyPair, SignJWT } from 'jose'
import { createTeeKeyPair } from '#attestation/client/sealed-resource'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import type { RequestLogLine } from '#attestation/verifier/request-log'
import type { JsonValue } from '#protocol/canonical-json'
import { type KbsVersion, reportDataDigest } from '#protocol/kbs-messages'
import { nodeCrypto } from '#protocol/node/crypto'
import { amd, INITDATA, policyWith, snpReference, snpSource, tdxSource } from './hardware-guests.ts'
import { type Site, startSite } from './site.ts'

interface Reply {
  readonly status: number
  readonly json: Record<string, unknown>
  readonly cookie: string
}

async function send(
  site: Site,
  method: 'GET' | 'POST',
  path: string,
  options: { body?: unknown; headers?: Record<string, string> } = {},
): Promise<Reply> {
  const body = options.body === undefined ? {} : { body: Buffer.from(JSON.stringify(options.body)) }
  const reply = await site.http.request({
    method,
    url: site.verifier.url + path,
    headers: options.headers ?? {},
    ...body,
  })
  const chunks: Uint8Array[] = []
  for await (const chunk of reply.body) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString()
  const cookie = /kbs-session-id=[^;]+/.exec(reply.headers['set-cookie'] ?? '')?.[0] ?? ''
  return { status: reply.status, json: text.startsWith('{') ? JSON.parse(text) : {}, cookie }
}

async function served(t: ExecutionContext, onRequest?: (line: RequestLogLine) => void): Promise<Site> {
  const site = await startSite(t, onRequest === undefined ? {} : { onRequest })
  await site.admin.putPolicy('amd', policyWith([amd.ark.der]))
  await site.admin.putReference(snpReference('web', [{ vcpus: 1, measurement: 'ab'.repeat(48) }]))
  await site.admin.putResource('default/tls/key', Buffer.from('tls key'))
  return site
}

async function challenge(site: Site, version: string, tee = 'snp', prefix = '') {
  const body = { version, tee, 'extra-params': '' }
  return await send(site, 'POST', `${prefix}/kbs/v0/auth`, { body })
}

/** An answer in the shape of its version. */
async function answerTo(nonce: string, version: KbsVersion, source = snpSource()): Promise<object> {
  const { publicKey } = await createTeeKeyPair()
  const bound = { version, nonce, teePublicKey: publicKey, additionalEvidence: '' }
  const prepared = await source.prepare()
  const reportData = reportDataDigest(nodeCrypto, bound)
  const evidence: JsonValue = await prepared.answer({ challenge: { nonce }, reportData, images: [] })
  if (version === '0.2.0') return { 'tee-pubkey': publicKey, 'tee-evidence': evidence }
  const runtime = { 'runtime-data': { nonce, 'tee-pubkey': publicKey } }
  const initdata = { 'init-data': { format: 'toml', body: Buffer.from(INITDATA).toString() } }
  if (version === '0.3.0') return { ...initdata, ...runtime, 'tee-evidence': evidence }
  return {
    ...initdata,
    ...runtime,
    'tee-evidence': { primary_evidence: evidence, additional_evidence: '' },
  }
}

async function attest(site: Site, prefix = ''): Promise<Reply & { token: string }> {
  const { json, cookie } = await challenge(site, '0.4.0', 'snp', prefix)
  const body = await answerTo(String(json.nonce), '0.4.0')
  const reply = await send(site, 'POST', `${prefix}/kbs/v0/attest`, { body, headers: { cookie } })
  return { ...reply, token: String(reply.json.token) }
}

for (const version of ['0.2.0', '0.3.0', '0.4.0'] as const) {
  test(`a client of version ${version} attests an SNP guest and gets a resource`, async (t) => {
    const site = await served(t)
    const { json, cookie } = await challenge(site, version)
    t.is(json['extra-params'], '')
    t.regex(String(json.nonce), /^[A-Za-z0-9+/]{43}=$/)
    const body = await answerTo(String(json.nonce), version)
    const attested = await send(site, 'POST', '/kbs/v0/attest', { body, headers: { cookie } })
    t.is(attested.status, 200)
    const resource = await send(site, 'GET', '/kbs/v0/resource/default/tls/key', {
      headers: { cookie: attested.cookie },
    })
    t.deepEqual(Object.keys(resource.json), ['protected', 'encrypted_key', 'iv', 'ciphertext', 'tag'])
  })
}

for (const version of ['0.1.0', '0.1.1', '0.5.0', '1.0.0']) {
  test(`a client of version ${version} is told that versions do not match`, async (t) => {
    const { status, json } = await challenge(await served(t), version)
    t.is(status, 401)
    t.like(json, {
      type: 'https://github.com/confidential-containers/kbs/errors/AttestationError',
      code: 'ERR_KBS_VERSION',
    })
    t.regex(String(json.detail), /KBS Client Protocol Version Mismatch/)
  })
}

test('of one answer sent many times at once exactly one gets a token', async (t) => {
  const site = await served(t)
  const { json, cookie } = await challenge(site, '0.4.0')
  const body = await answerTo(String(json.nonce), '0.4.0')
  const all = await Promise.all(
    Array.from({ length: 6 }, () => send(site, 'POST', '/kbs/v0/attest', { body, headers: { cookie } })),
  )
  t.is(all.filter(({ status }) => status === 200).length, 1)
  for (const { status, json: refusal } of all) if (status !== 200) t.is(refusal.code, 'ERR_CHALLENGE_SPENT')
})

test('answers, cookies and evidence of different sessions do not mix', async (t) => {
  const site = await served(t)
  const [one, two] = [await challenge(site, '0.4.0'), await challenge(site, '0.4.0')]
  const body = await answerTo(String(one.json.nonce), '0.4.0')
  const mixed = await send(site, 'POST', '/kbs/v0/attest', { body, headers: { cookie: two.cookie } })
  t.deepEqual([mixed.status, mixed.json.code], [401, 'ERR_NONCE_MISMATCH'])
  const both = await send(site, 'POST', '/kbs/v0/attest', { body, headers: { cookie: `${one.cookie}; ${two.cookie}` } })
  t.is(both.json.code, 'ERR_SESSION_MISSING')
  const tdx = await challenge(site, '0.4.0', 'tdx')
  const snp = await answerTo(String(tdx.json.nonce), '0.4.0')
  const wrong = await send(site, 'POST', '/kbs/v0/attest', { body: snp, headers: { cookie: tdx.cookie } })
  t.is(wrong.status, 400)
  const azure = await challenge(site, '0.4.0', 'az-snp-vtpm')
  const quote = await answerTo(String(azure.json.nonce), '0.4.0', tdxSource())
  t.is((await send(site, 'POST', '/kbs/v0/attest', { body: quote, headers: { cookie: azure.cookie } })).status, 400)
  const unused = await send(site, 'GET', '/kbs/v0/resource/default/tls/key', { headers: { cookie: two.cookie } })
  t.is(unused.json.code, 'ERR_TOKEN_MISSING', 'a challenge is no attestation')
})

test('sessions and tokens of one tenant open nothing of another', async (t) => {
  const site = await served(t)
  const owner = createAdminKey()
  await site.admin.putTenant('shop', { admins: [{ key: owner.publicJwk, role: 'owner' }] })
  const url = `${site.verifier.url}/t/shop`
  const shop = new VerifierAdminClient({ http: site.http, url, adminKey: owner.privateJwk })
  await shop.putPolicy('amd', policyWith([amd.ark.der]))
  await shop.putReference(snpReference('web', [{ vcpus: 1, measurement: 'ab'.repeat(48) }]))
  const { cookie, token } = await attest(site, '/t/shop')
  t.regex(token, /^eyJ/)
  for (const headers of [{ cookie }, { authorization: `Bearer ${token}` }]) {
    const reply = await send(site, 'GET', '/kbs/v0/resource/default/tls/key', {
      headers: headers as Record<string, string>,
    })
    t.is(reply.status, 401)
  }
  const open = await challenge(site, '0.4.0', 'snp', '/t/shop')
  const body = await answerTo(String(open.json.nonce), '0.4.0')
  const elsewhere = await send(site, 'POST', '/kbs/v0/attest', { body, headers: { cookie: open.cookie } })
  t.is(elsewhere.json.code, 'ERR_SESSION_INVALID')
})

test('tokens of other algorithms or keys are refused, whatever their headers claim', async (t) => {
  const site = await served(t)
  const { token } = await attest(site)
  const [header = '', payload = '', signature = ''] = token.split('.')
  const own = decodeProtectedHeader(token)
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const { keys } = (await send(site, 'GET', '/.well-known/jwks.json')).json as { keys: { x: string; y: string }[] }
  const hmac = (head: object): string => {
    const signed = `${encode(head)}.${payload}`
    const mac = createHmac('sha256', JSON.stringify(keys[0])).update(signed).digest('base64url')
    return `${signed}.${mac}`
  }
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true })
  const jwk = await exportJWK(publicKey)
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as object
  const signedBy = (head: object) =>
    new SignJWT({ ...claims }).setProtectedHeader({ alg: 'ES256', typ: 'JWT', ...head }).sign(privateKey)
  const forged = [
    `${encode({ ...own, alg: 'none' })}.${payload}.`,
    hmac({ ...own, alg: 'HS256' }),
    await signedBy({ jwk }),
    await signedBy({ ...own, jwk }),
    await signedBy({ kid: await calculateJwkThumbprint(jwk), jku: 'http://127.0.0.1:1/keys' }),
    `${header}.${Buffer.from(JSON.stringify({ ...claims, exp: 9e9 })).toString('base64url')}.${signature}`,
    String((await send(site, 'GET', '/kbs/v0/time')).json.time),
    `${token}x`,
    'x'.repeat(61_000),
  ]
  for (const forgery of forged) {
    const headers = { authorization: `Bearer ${forgery}` }
    const { status, json } = await send(site, 'GET', '/kbs/v0/resource/default/tls/key', { headers })
    t.deepEqual([status, json.type], [401, 'https://github.com/confidential-containers/kbs/errors/TokenVerifierError'])
  }
})

/** A request as it is written, which clients would tidy up. */
function raw(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const socket = connect(Number(port), hostname, () => socket.write(text)) // the server closes it
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('error', reject)
    socket.on('close', () => resolve(Buffer.concat(chunks).toString()))
  })
}

test('paths with tricks in them match nothing, and plugins that do not exist are said not to', async (t) => {
  const site = await startSite(t, { tls: undefined as never })
  for (const path of [
    '/kbs/v0/resource/default/tls/../tls/key',
    '/kbs/v0/resource/default/tls/%2e%2e',
    '/kbs/v0/resource//tls/key',
    '//kbs/v0/auth',
    '/kbs/v0/./auth',
    '/t/../kbs/v0/time',
    '/t/%00/kbs/v0/time',
    '/kbs/v0/auth/',
    'http://elsewhere/kbs/v0/time',
    '/kbs/v0/resource/a/b/c/d',
  ]) {
    const answer = await raw(site.verifier.url, `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
    t.regex(answer, /^HTTP\/1\.1 (404|401|400) /, path)
    t.notRegex(answer, /tls key/)
  }
  const plugin = await raw(
    site.verifier.url,
    'GET /kbs/v0/nebula-ca/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
  )
  t.regex(plugin, /^HTTP\/1\.1 404 .*errors\/PluginNotFound/s)
})

test('names and headers of strangers do not get into log lines, metrics or records unescaped', async (t) => {
  const lines: RequestLogLine[] = []
  const site = await served(t, (line) => lines.push(line))
  await challenge(site, '0.4.0', 'x\n{"forged":1}')
  await challenge(site, '0.4.0', 'sgx')
  await send(site, 'GET', '/kbs/v0/resource/a%0a/b/c', { headers: { authorization: 'Bearer secret-token' } })
  const { token } = await attest(site)
  const text = lines.map((line) => JSON.stringify(line)).join('\n')
  t.is(text.split('\n').length, lines.length)
  for (const secret of ['forged', 'secret-token', token, 'kbs-session-id', '%0a'])
    t.false(text.includes(secret), secret)
  t.true(
    lines.some(
      ({ route, code, status }) => route === 'POST /kbs/v0/auth' && code === 'ERR_TEE_UNSUPPORTED' && status === 401,
    ),
  )
  const records = await site.admin.listAttestations({ verdict: 'refused' })
  t.true(records.every(({ tee }) => !tee.includes('\n')))
})

test('metrics are served apart from guests, on loopback only', async (t) => {
  const site = await startSite(t, { metrics: { host: '127.0.0.1', port: 0 } })
  await send(site, 'GET', '/healthz')
  const reply = await fetch(`${site.verifier.metricsUrl ?? ''}/metrics`)
  t.is(reply.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  t.regex(await reply.text(), /kbs_http_requests_total\{route="GET \/healthz",status="200"\} 1/)
  t.is((await send(site, 'GET', '/metrics')).status, 404)
  t.is((await fetch(`${site.verifier.metricsUrl ?? ''}/kbs/v0/time`)).status, 404)
  await t.throwsAsync(startSite(t, { metrics: { host: '0.0.0.0', port: 0 } }), { code: 'ERR_TLS_REQUIRED' })
})

test('a verifier that is told to stop ends what it began and takes nothing more', async (t) => {
  const site = await startSite(t, { tls: undefined as never })
  const { hostname, port } = new URL(site.verifier.url)
  const socket = connect(Number(port), hostname).setEncoding('utf8')
  t.teardown(() => socket.destroy())
  const body = JSON.stringify({ version: '0.4.0', tee: 'snp', 'extra-params': '' })
  socket.write(
    `POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${body.length}\r\n\r\n`,
  )
  const [begun]: string[] = await once(socket, 'data')
  t.regex(begun ?? '', /^HTTP\/1\.1 100 /)
  const closed = site.verifier.close()
  await t.throwsAsync(send(site, 'GET', '/healthz'))
  socket.write(body)
  const [answer]: string[] = await once(socket, 'data')
  t.regex(answer ?? '', /^HTTP\/1\.1 200 /)
  await closed
})
