import test, { type ExecutionContext } from 'ava'
import { verifyToken } from '#attestation/token/verify-token'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { type Site, startSite } from './site.ts'

interface Served {
  readonly client: VerifierAdminClient
  readonly url: string
}

/** A tenant with an owner of its own. */
async function addTenant(site: Site, name: string, settings: object = {}): Promise<Served> {
  const owner = createAdminKey()
  await site.admin.putTenant(name, { admins: [{ key: owner.publicJwk, role: 'owner' }], ...settings })
  const url = `${site.verifier.url}/t/${name}`
  return { url, client: new VerifierAdminClient({ http: site.http, url, adminKey: owner.privateJwk }) }
}

async function ask(
  site: Site,
  url: string,
): Promise<{ status: number; json: Record<string, unknown>; cookie: string }> {
  const reply = await site.http.request({ method: 'GET', url })
  return { status: reply.status, json: JSON.parse(await textOf(reply.body)), cookie: '' }
}

async function textOf(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

async function refusedCode(t: ExecutionContext, work: Promise<unknown>): Promise<unknown> {
  const error = await t.throwsAsync(work)
  return error !== undefined && 'refusal' in error ? (error.refusal as { code: string }).code : error?.message
}

test("a tenant's administrators, guests, tokens, sessions and names reach nothing of another tenant", async (t) => {
  const site = await startSite(t)
  const [shop, bank] = [await addTenant(site, 'shop'), await addTenant(site, 'bank')]
  await shop.client.putResource('default/tls/key', Buffer.from('of the shop'))
  await bank.client.putResource('default/tls/other', Buffer.from('of the bank'))
  t.deepEqual(
    (await shop.client.listResources()).map(({ path }) => path),
    ['default/tls/key'],
  )
  t.deepEqual(
    (await bank.client.listResources()).map(({ path }) => path),
    ['default/tls/other'],
  )
  t.deepEqual(await site.admin.listResources(), [])
  t.deepEqual(
    (await bank.client.listAudit()).map(({ subject }) => subject),
    ['default/tls/other'],
  )

  const trespasser = new VerifierAdminClient({
    http: site.http,
    url: bank.url,
    adminKey: (await ownerOf(site, 'mall')).privateJwk,
  })
  t.is(await refusedCode(t, trespasser.listResources()), 'ERR_ADMIN_AUTH')
  t.is(await refusedCode(t, shop.client.listTenants()), 'ERR_NO_SUCH_PATH')
  t.is(await refusedCode(t, shop.client.putTenant('more', {})), 'ERR_NO_SUCH_PATH')

  const keysOf = async (url: string) => (await ask(site, `${url}/.well-known/jwks.json`)).json
  const timeOf = async (url: string) => String((await ask(site, `${url}/kbs/v0/time`)).json.time)
  const [shopKeys, bankKeys] = [await keysOf(shop.url), await keysOf(bank.url)]
  t.notDeepEqual(shopKeys, bankKeys)
  const token = await timeOf(shop.url)
  const input = { token, issuer: 'caisson-verifier/t/shop', now: new Date(), type: 'time+jwt' } as const
  t.notThrows(() => verifyToken({ ...input, keys: { keys: shopKeys.keys as [] } }))
  t.throws(() => verifyToken({ ...input, keys: { keys: bankKeys.keys as [] } }), { code: 'ERR_TOKEN_UNKNOWN_KEY' })

  const unknown = await ask(site, `${site.verifier.url}/t/nobody/kbs/v0/time`)
  t.deepEqual([unknown.status, unknown.json.code], [404, 'ERR_TENANT_NOT_FOUND'])
  await site.admin.removeTenant('shop')
  t.is((await ask(site, `${shop.url}/kbs/v0/time`)).status, 404)
  t.is((await ask(site, `${bank.url}/kbs/v0/time`)).status, 200)
})

async function ownerOf(site: Site, name: string) {
  const owner = createAdminKey()
  await site.admin.putTenant(name, { admins: [{ key: owner.publicJwk, role: 'owner' }] })
  return owner
}

test('a tenant that asks too often is told to wait, and no other is', async (t) => {
  const site = await startSite(t)
  const [busy, calm] = [await addTenant(site, 'busy', { requestsPerMinute: 12 }), await addTenant(site, 'calm')]
  const statuses = await Promise.all(
    Array.from({ length: 6 }, async () => (await ask(site, `${busy.url}/kbs/v0/time`)).status),
  )
  t.is(statuses.filter((status) => status === 200).length, 2, 'what arrives in ten seconds')
  t.is(statuses.filter((status) => status === 429).length, 4)
  t.is((await ask(site, `${calm.url}/kbs/v0/time`)).status, 200)
})

test('a tenant’s quota of resources is its own', async (t) => {
  const site = await startSite(t)
  const [small, large] = [await addTenant(site, 'small', { maxResources: 1 }), await addTenant(site, 'large')]
  await small.client.putResource('a/b/c', Buffer.from('x'))
  t.is(await refusedCode(t, small.client.putResource('a/b/d', Buffer.from('x'))), 'ERR_RESOURCE_LIMIT')
  await large.client.putResource('a/b/d', Buffer.from('x'))
  await small.client.putResource('a/b/c', Buffer.from('y'))
})

test('health and readiness need no tenant and no key', async (t) => {
  const site = await startSite(t)
  t.deepEqual((await ask(site, `${site.verifier.url}/healthz`)).json, { status: 'ok' })
  t.deepEqual((await ask(site, `${site.verifier.url}/readyz`)).json, { status: 'ready' })
})
