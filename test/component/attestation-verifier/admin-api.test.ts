import test from 'ava'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { VerifierRefusal } from '#attestation/client/verifier-http'
import { verifyToken } from '#attestation/token/verify-token'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { startSite } from './site.ts'

const MANIFEST = `sha256:${'c'.repeat(64)}`

async function text(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

test('resources are stored, listed without their contents, replaced and removed, and each act is on record', async (t) => {
  const { admin, adminKey } = await startSite(t)
  await admin.putResource('default/tls/key', Buffer.from('one'))
  await admin.putResource('default/tls/key', Buffer.from('three'), { kind: 'images', manifests: [MANIFEST] })
  const [listed, ...others] = await admin.listResources()
  t.deepEqual(others, [])
  t.like(listed, {
    path: 'default/tls/key',
    sizeBytes: 5,
    version: 2,
    release: { kind: 'images', manifests: [MANIFEST] },
  })
  t.true(listed?.updatedAt instanceof Date)
  await admin.removeResource('default/tls/key')
  t.deepEqual(await admin.listResources(), [])
  t.deepEqual(
    (await admin.listAudit()).map(({ actor, action, subject }) => [actor, action, subject]),
    [
      [`admin ${adminKey.id}`, 'resource.remove', 'default/tls/key'],
      [`admin ${adminKey.id}`, 'resource.put', 'default/tls/key'],
      [`admin ${adminKey.id}`, 'resource.put', 'default/tls/key'],
    ],
  )
})

test('an administrator is told what is wrong', async (t) => {
  const { admin } = await startSite(t)
  const cases: [() => Promise<unknown>, string, number][] = [
    [() => admin.removeResource('default/tls/missing'), 'ERR_RESOURCE_NOT_FOUND', 404],
    [() => admin.putResource('default/../key', Buffer.of(1)), 'ERR_NO_SUCH_PATH', 404],
    [() => admin.putResource('default/.tls/key', Buffer.of(1)), 'ERR_RESOURCE_NAME', 404],
    [() => admin.putResource('default/tls/big', Buffer.alloc(1024 * 1024 + 1)), 'ERR_BODY_TOO_LARGE', 413],
    [
      () => admin.putResource('a/b/c', Buffer.of(1), { kind: 'images', manifests: ['x'] }),
      'ERR_RELEASE_CONDITION',
      400,
    ],
    [() => admin.putReference('{'), 'ERR_REFERENCE_VALUES', 400],
    [() => admin.removeReference('missing'), 'ERR_REFERENCE_NOT_FOUND', 404],
    [() => admin.removeReference('../x'), 'ERR_REFERENCE_ID', 400],
    [() => admin.explain('nothing'), 'ERR_ATTESTATION_NOT_FOUND', 404],
    [() => admin.listAttestations({ limit: -1 }), 'ERR_QUERY', 400],
  ]
  for (const [call, code, status] of cases) {
    const error = await t.throwsAsync(call(), { instanceOf: VerifierRefusal }, code)
    t.is(error?.refusal.code, code)
    t.is(error?.refusal.status, status, code)
  }
})

test('without an administrator key nothing is stored, listed or removed', async (t) => {
  const { http, verifier, admin } = await startSite(t)
  await admin.putResource('default/tls/key', Buffer.from('kept'))
  const stranger = new VerifierAdminClient({ http, url: verifier.url, adminKey: createAdminKey().privateJwk })
  const calls: (() => Promise<unknown>)[] = [
    () => stranger.putResource('default/tls/key', Buffer.from('changed')),
    () => stranger.removeResource('default/tls/key'),
    () => stranger.listResources(),
    () => stranger.putReference('{"id":"x"}'),
    () => stranger.listReferences(),
    () => stranger.removeReference('x'),
    () => stranger.listAttestations(),
    () => stranger.explain('x'),
    () => stranger.listAudit(),
  ]
  for (const call of calls) {
    const error = await t.throwsAsync(call(), { instanceOf: VerifierRefusal })
    t.is(error?.refusal.code, 'ERR_ADMIN_AUTH')
  }
  t.like(await admin.listResources(), [{ sizeBytes: 4, version: 1 }])
})

test('health, published keys and signed time are open; everything else is not there', async (t) => {
  const { http, verifier } = await startSite(t)
  const get = async (path: string) => {
    const { status, body } = await http.request({ method: 'GET', url: verifier.url + path })
    return { status, json: JSON.parse(await text(body)) }
  }
  t.is((await get('/healthz')).status, 200)
  const keys = (await get('/.well-known/jwks.json')).json
  const { time } = (await get('/kbs/v0/time?nonce=abc')).json
  const input = { token: time, keys, issuer: 'caisson-verifier', now: new Date() }
  const claims = verifyToken({ ...input, type: 'time+jwt' })
  t.is(claims.nonce, 'abc')
  t.true(Math.abs((claims.iat ?? 0) * 1000 - Date.now()) < 5_000)
  t.throws(() => verifyToken(input), { code: 'ERR_TOKEN_CLAIMS' }, 'the time is no attestation token')
  t.is((await get('/kbs/v0/time?nonce=%22')).status, 400)
  for (const path of ['/', '/kbs/v0', '/kbs/v1/auth', '/kbs/v0/auth', '/kbs/v0/resource/a/b', '/kbs/v0/auth/']) {
    const { status, json } = await get(path)
    t.is(status, 404, path)
    t.is(json.code, 'ERR_NO_SUCH_PATH')
    t.regex(json.type, /\/InvalidRequestPath$/)
  }
  t.regex((await get('/kbs/v0/nebula-ca/x')).json.type, /\/PluginNotFound$/)
})

test('keys are rotated without invalidating what is out, and a second process knows them', async (t) => {
  const { http, verifier, startSecond } = await startSite(t)
  const get = async (url: string) => JSON.parse(await text((await http.request({ method: 'GET', url })).body))
  const { time } = await get(`${verifier.url}/kbs/v0/time`)
  await verifier.rotateTokenKey()
  const second = await startSecond()
  const keys = await get(`${second}/.well-known/jwks.json`)
  t.is(keys.keys.length, 2)
  await t.notThrowsAsync(jwtVerify(time, createLocalJWKSet(keys)))
})

test('an error answer has the KBS shape with a code and a correlation id, and says no more to a guest', async (t) => {
  const { http, verifier, admin } = await startSite(t)
  const body = Buffer.from('{"version":"0.1.1","tee":"tpm","extra-params":""}')
  const reply = await http.request({ method: 'POST', url: `${verifier.url}/kbs/v0/auth`, body })
  t.is(reply.status, 401)
  const problem = JSON.parse(await text(reply.body))
  t.deepEqual(Object.keys(problem), ['type', 'detail', 'code', 'correlation_id'])
  t.is(problem.type, 'https://github.com/confidential-containers/kbs/errors/AttestationError')
  t.is(problem.detail, 'KBS Client Protocol Version Mismatch')
  const [record] = await admin.explain(problem.correlation_id)
  t.like(record, { code: 'ERR_KBS_VERSION', stage: 'auth', verdict: 'refused' })
  t.regex(record?.reason ?? '', /0\.1\.1/)
})

test('a log line cannot be forged: what a stranger sends is stored as data', async (t) => {
  const { http, verifier, admin } = await startSite(t)
  const evil = `x\nlevel=info msg="attested"\u001b[2J`
  const body = Buffer.from(JSON.stringify({ version: evil.slice(0, 32), tee: 'tpm', 'extra-params': '' }))
  const reply = await http.request({ method: 'POST', url: `${verifier.url}/kbs/v0/auth`, body })
  const { correlation_id: id } = JSON.parse(await text(reply.body))
  const [record] = await admin.explain(id)
  t.true(Buffer.from(record?.reason ?? '\n').every((byte) => byte >= 0x20))
})
