import test from 'ava'
import { parseChallenges } from '#image/registry/challenge'
import { RegistryClient } from '#image/registry/client'
import type { HttpRequest } from '#protocol/http-transport'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Descriptor } from '#protocol/oci/descriptor'
import { parseReference } from '#protocol/oci/reference'
import { type Answer, bytes, FakeHttp, sha256 } from './fixtures.ts'

const REPOSITORY = parseReference('r.example/team/app:1')
const BLOB = 'some content of a blob'

function descriptor(content: string, more: Partial<Descriptor> = {}): Descriptor {
  return {
    mediaType: 'application/octet-stream',
    digest: sha256(content),
    size: content.length,
    annotations: new Map(),
    artifactType: undefined,
    platform: undefined,
    ...more,
  }
}

function client(answer: (request: HttpRequest, number: number) => Answer, more: object = {}) {
  const http = new FakeHttp(answer)
  return { http, registry: new RegistryClient({ http, crypto: nodeCrypto, ...more }) }
}

const blob = { maxBytes: 1000, what: 'blob' }

test('a manifest is asked for by digest where there is one, and must have that digest', async (t) => {
  const { http, registry } = client(() => ({ body: '{}', headers: { 'docker-content-digest': sha256('other') } }))
  const found = await registry.fetchManifest({ ...REPOSITORY, digest: sha256('{}') })
  t.is(found.digest, sha256('{}'))
  t.is(http.requests[0]?.url, `https://r.example/v2/team/app/manifests/${sha256('{}')}`)
  const changed = registry.fetchManifest({ ...REPOSITORY, digest: sha256('{ }') })
  await t.throwsAsync(changed, { code: 'ERR_DIGEST_MISMATCH' })
})

test('a tag resolves to the digest of the bytes, whatever the registry says it is', async (t) => {
  const { registry } = client(() => ({ body: '{}', headers: { 'docker-content-digest': sha256('other') } }))
  t.is((await registry.fetchManifest(REPOSITORY)).digest, sha256('{}'))
})

test('Docker Hub is reached under the name of its API', async (t) => {
  const { http, registry } = client(() => ({ body: '{}' }))
  await registry.fetchManifest(parseReference('nginx:1'))
  t.is(http.requests[0]?.url, 'https://registry-1.docker.io/v2/library/nginx/manifests/1')
})

test('absence, refusal and failure of the registry are told apart', async (t) => {
  const fetch = async (status: number): Promise<unknown> =>
    await client(() => ({ status, body: 'secret\u0007 words' })).registry.fetchManifest(REPOSITORY)
  await t.throwsAsync(fetch(404), { code: 'ERR_IMAGE_NOT_FOUND' })
  await t.throwsAsync(fetch(401), { code: 'ERR_REGISTRY_UNAUTHORIZED' })
  const error = await t.throwsAsync(fetch(500), { code: 'ERR_REGISTRY_STATUS' })
  t.true(error?.message.includes('secret\\u0007 words'))
})

test('a manifest beyond the limit is not read, declared or not', async (t) => {
  const big = 'x'.repeat(2000)
  const options = { maxManifestBytes: 1000 }
  for (const headers of [{}, { 'content-length': '2000' }]) {
    const { registry } = client(() => ({ body: big, headers }), options)
    await t.throwsAsync(registry.fetchManifest(REPOSITORY), { code: 'ERR_REGISTRY_TOO_LARGE' })
  }
})

test('a blob must have exactly the described length and content', async (t) => {
  const fetch = async (body: string, headers = {}): Promise<Uint8Array> =>
    await client(() => ({ body, headers })).registry.fetchBlob(REPOSITORY, descriptor(BLOB), blob)
  t.deepEqual(await fetch(BLOB), bytes(BLOB))
  await t.throwsAsync(fetch(BLOB, { 'content-length': '5' }), { code: 'ERR_BLOB_SIZE' })
  await t.throwsAsync(fetch(BLOB.slice(1)), { code: 'ERR_BLOB_SHORT' })
  await t.throwsAsync(fetch(`${BLOB}x`), { code: 'ERR_BLOB_SIZE' })
  await t.throwsAsync(fetch(BLOB.replace('s', 'S')), { code: 'ERR_DIGEST_MISMATCH' })
  await t.throwsAsync(fetch(BLOB, { 'content-encoding': 'gzip' }), { code: 'ERR_REGISTRY_ENCODING' })
})

test('a blob that is described as larger than accepted is not asked for', async (t) => {
  const { http, registry } = client(() => ({ body: BLOB }))
  const huge = descriptor(BLOB, { size: 1e12 })
  await t.throwsAsync(registry.fetchBlob(REPOSITORY, huge, blob), { code: 'ERR_REGISTRY_TOO_LARGE' })
  t.is(http.requests.length, 0)
})

test('a redirect within the host is followed; one to another host only when allowed, and without credentials', async (t) => {
  const answer =
    (location: string) =>
    (request: HttpRequest): Answer => {
      if (request.headers?.authorization === undefined && request.url.includes('/v2/')) {
        return { status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } }
      }
      return request.url.includes('/v2/') ? { status: 307, headers: { location } } : { body: BLOB }
    }
  const credentials = () => ({ username: 'u', password: 'p' })
  const same = client(answer('/storage/1'), { credentials })
  t.deepEqual(await same.registry.fetchBlob(REPOSITORY, descriptor(BLOB), blob), bytes(BLOB))
  t.is(same.http.requests.at(-1)?.url, 'https://r.example/storage/1')
  t.is(same.http.requests.at(-1)?.headers?.authorization, 'Basic dTpw')

  const elsewhere = 'https://cdn.example/1?signature=x'
  const refused = client(answer(elsewhere), { credentials })
  const pull = refused.registry.fetchBlob(REPOSITORY, descriptor(BLOB), blob)
  await t.throwsAsync(pull, { code: 'ERR_REGISTRY_REDIRECT' })
  t.false(refused.http.requests.some(({ url }) => url.includes('cdn.example')))

  const allowRedirect = (registry: string, host: string): boolean => registry === 'r.example' && host === 'cdn.example'
  const allowed = client(answer(elsewhere), { credentials, allowRedirect })
  t.deepEqual(await allowed.registry.fetchBlob(REPOSITORY, descriptor(BLOB), blob), bytes(BLOB))
  t.is(allowed.http.requests.at(-1)?.url, elsewhere)
  t.is(allowed.http.requests.at(-1)?.headers?.authorization, undefined)
})

test('redirects to plain http, with user names, without end, or to nowhere are refused', async (t) => {
  for (const location of [
    'http://r.example/x',
    'https://u:p@r.example/x',
    '/v2/again',
    'ftp://r.example/',
    'https://',
    '',
  ]) {
    const { registry, http } = client(() => ({ status: 302, headers: { location } }), { allowRedirect: () => true })
    const pull = registry.fetchBlob(REPOSITORY, descriptor(BLOB), blob)
    await t.throwsAsync(pull, { code: 'ERR_REGISTRY_REDIRECT' }, location)
    t.true(http.requests.length <= 5)
  }
})

const BEARER = 'Bearer realm="https://auth.example/token",service="r.example",scope="repository:other:pull,push"'

test('a bearer token is fetched for this repository, used, and kept', async (t) => {
  const { http, registry } = client(({ url, headers }) => {
    if (url.startsWith('https://auth.example/')) return { body: '{"token":"abc.def"}' }
    if (headers?.authorization !== 'Bearer abc.def') return { status: 401, headers: { 'www-authenticate': BEARER } }
    return { body: BLOB }
  })
  await registry.fetchBlob(REPOSITORY, descriptor(BLOB), blob)
  await registry.fetchBlob(REPOSITORY, descriptor(BLOB), blob)
  t.deepEqual(
    http.requests.map(({ url }) => new URL(url).host),
    ['r.example', 'auth.example', 'r.example', 'r.example'],
  )
  const asked = new URL(http.requests[1]?.url ?? '')
  // The registry's idea of the scope is not asked for.
  t.is(asked.searchParams.get('scope'), 'repository:team/app:pull')
  t.is(asked.searchParams.get('service'), 'r.example')
})

test('token servers that are not https, redirect, fail, or answer nonsense are refused', async (t) => {
  const fetch = async (challenge: string, token: Answer): Promise<unknown> => {
    const { registry } = client(({ url }) =>
      url.includes('/v2/') ? { status: 401, headers: { 'www-authenticate': challenge } } : token,
    )
    return await registry.fetchManifest(REPOSITORY)
  }
  const denied = { code: 'ERR_REGISTRY_UNAUTHORIZED' }
  await t.throwsAsync(fetch('Bearer realm="http://auth.example/"', {}), denied)
  await t.throwsAsync(fetch('Bearer realm="nonsense"', {}), denied)
  await t.throwsAsync(fetch('Bearer service="x"', {}), denied)
  await t.throwsAsync(fetch('Negotiate', {}), denied)
  await t.throwsAsync(fetch('Basic realm="x"', {}), denied)
  await t.throwsAsync(fetch(BEARER, { status: 302, headers: { location: 'https://r.example/' } }), denied)
  await t.throwsAsync(fetch(BEARER, { status: 403 }), denied)
  // What may pass is no refusal.
  await t.throwsAsync(fetch(BEARER, { status: 503 }), { code: 'ERR_REGISTRY_STATUS' })
  await t.throwsAsync(fetch(BEARER, { body: '{}' }), denied)
  await t.throwsAsync(fetch(BEARER, { body: '{"token":"with space"}' }), denied)
  await t.throwsAsync(fetch(BEARER, { body: '{"token":"a\\r\\nx: y"}' }), denied)
  await t.throwsAsync(fetch(BEARER, { body: 'nonsense' }), { code: 'ERR_JSON' })
  await t.throwsAsync(fetch(BEARER, { body: 'x'.repeat(100_000) }), { code: 'ERR_REGISTRY_TOO_LARGE' })
})

test('challenges are read as RFC 9110 writes them', (t) => {
  t.deepEqual(parseChallenges(BEARER), [
    {
      scheme: 'bearer',
      params: new Map([
        ['realm', 'https://auth.example/token'],
        ['service', 'r.example'],
        ['scope', 'repository:other:pull,push'],
      ]),
    },
  ])
  const several = parseChallenges('Negotiate abc==, Basic realm="a \\"b\\"" , Bearer realm = x')
  t.deepEqual(
    several.map(({ scheme, params }) => [scheme, params.get('realm')]),
    [
      ['negotiate', undefined],
      ['basic', 'a "b"'],
      ['bearer', 'x'],
    ],
  )
  for (const header of ['"', 'Basic realm="x', 'Basic realm=a, realm=b', 'x'.repeat(5000), '=a']) {
    t.throws(() => parseChallenges(header), { code: 'ERR_REGISTRY_CHALLENGE' }, header.slice(0, 40))
  }
})
