/** Ways into a registry: token server, refresh and bearer tokens, credentials per repository, mirrors and locations. */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import test, { type ExecutionContext } from 'ava'
import { importPKCS8, SignJWT } from 'jose'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { parseAuthFile } from '#image/auth/auth-file'
import { inspectImage } from '#image/node/inspect'
import { pushImage } from '#image/node/push'
import { generateSigningKey, signImage } from '#image/node/sign'
import { verifyImage } from '#image/node/verify'
import { parseSignaturePolicy } from '#image/policy/parse'
import { parseRegistriesConf, routeBy } from '#image/registry/registries-conf'
import { writeImageLayout } from '#tools/nginx-image/layout'
import { pushLayers, THREE_LAYERS } from './fixtures/image.ts'
import { startRegistry } from './fixtures/registry.ts'
import { workspace } from './fixtures/workspace.ts'

interface TokenServer {
  readonly auth: object
  readonly caPem: string
  /** What was asked, as "GET joe" or "POST refresh_token". */
  readonly asked: string[]
  readonly bearer: (repository: string) => Promise<string>
}

const SERVICE = 'registry.test'
const REFRESH = 'refresh-me'

/** Tokens as docker-registry takes them: JWTs by a certificate that it was told to trust. */
async function startTokenServer(t: ExecutionContext, folder: string): Promise<TokenServer> {
  const ca = createCa()
  const { certificatePem, privateKeyPem } = issueServerCertificate({ ca, names: ['auth.test'], ips: ['127.0.0.1'] })
  const key = await importPKCS8(privateKeyPem, 'ES256')
  const x5c = [certificatePem.replaceAll(/-----[^-]+-----|\s/g, '')]
  const issue = (subject: string, access: readonly object[]): Promise<string> =>
    new SignJWT({ access })
      .setProtectedHeader({ alg: 'ES256', typ: 'JWT', x5c })
      .setIssuer('test')
      .setSubject(subject)
      .setAudience(SERVICE)
      .setJti(randomUUID())
      .setNotBefore('-1m')
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(key)
  const accessTo = (scope: string, anonymous: boolean): readonly object[] => {
    const [type, name = '', actions = ''] = scope.split(':')
    return anonymous && !name.startsWith('public/') ? [] : [{ type, name, actions: actions.split(',') }]
  }
  const asked: string[] = []
  const server = createServer({ cert: certificatePem, key: privateKeyPem })
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '', 'https://auth.test')
    const form = new URLSearchParams(request.method === 'POST' ? await text(request) : url.search)
    const [, basic = ''] = /^Basic (.+)$/.exec(request.headers.authorization ?? '') ?? []
    const [user = '', password] = Buffer.from(basic, 'base64').toString().split(':')
    asked.push(request.method === 'POST' ? `POST ${form.get('grant_type')}` : `GET ${user || 'anonymous'}`)
    const refreshed = form.get('refresh_token') === REFRESH
    if ((request.method === 'POST' && !refreshed) || (user !== '' && password !== 'secret')) {
      response.writeHead(401).end()
      return
    }
    const known = refreshed || user !== ''
    const token = await issue(known ? 'joe' : '', accessTo(form.get('scope') ?? '', !known))
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end(JSON.stringify(request.method === 'POST' ? { access_token: token } : { token }))
  }
  server.on('request', (request, response) => {
    answer(request, response).catch((error: unknown) => response.writeHead(500).end(String(error)))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  await mkdir(folder, { recursive: true })
  const bundle = join(folder, 'token-ca.pem')
  await writeFile(bundle, ca.certificatePem)
  const realm = `https://auth.test:${(server.address() as AddressInfo).port}/token`
  return {
    auth: { token: { realm, service: SERVICE, issuer: 'test', rootcertbundle: bundle } },
    caPem: ca.certificatePem,
    asked,
    bearer: (repository) => issue('joe', [{ type: 'repository', name: repository, actions: ['pull'] }]),
  }
}

test('bearer tokens: anonymous where the repository is public, else by password, refresh token or the token itself', async (t) => {
  const folder = await workspace(t)
  const tokens = await startTokenServer(t, folder)
  const registry = await startRegistry(t, join(folder, 'registry'), { auth: tokens.auth })
  const layout = join(folder, 'layout')
  writeImageLayout(layout, { layers: THREE_LAYERS, config: {} })
  const basic = Buffer.from('joe:secret').toString('base64')
  const client = (auths?: object) =>
    registry.client({
      caPem: [tokens.caPem],
      hosts: { 'auth.test': '127.0.0.1' },
      ...(auths === undefined ? {} : { credentials: parseAuthFile(Buffer.from(JSON.stringify({ auths }))) }),
    })
  const joe = client({ [registry.host]: { auth: basic } })
  for (const name of ['public/app', 'private/app']) {
    await pushImage({ layout, reference: `${registry.host}/${name}:1`, registry: joe })
  }
  const inspect = (name: string, auths?: object) =>
    inspectImage({ reference: `${registry.host}/${name}:1`, registry: client(auths) })
  const since = (): readonly string[] => tokens.asked.splice(0)
  since()
  await t.notThrowsAsync(inspect('public/app'))
  t.true(since().every((line) => line === 'GET anonymous'))
  await t.throwsAsync(inspect('private/app'), { code: 'ERR_REGISTRY_UNAUTHORIZED' })
  since()
  await t.notThrowsAsync(inspect('private/app', { [registry.host]: { identitytoken: REFRESH } }))
  t.true(since().every((line) => line === 'POST refresh_token'))
  await t.throwsAsync(inspect('private/app', { [registry.host]: { identitytoken: 'stale' } }), {
    code: 'ERR_REGISTRY_UNAUTHORIZED',
  })
  since()
  await t.notThrowsAsync(
    inspect('private/app', { [registry.host]: { registrytoken: await tokens.bearer('private/app') } }),
  )
  t.deepEqual(since(), [])
  // The most specific entry counts, not the first that would do.
  const wrong = { auth: Buffer.from('joe:wrong').toString('base64') }
  await t.notThrowsAsync(
    inspect('private/app', { [registry.host]: wrong, [`${registry.host}/private`]: { auth: basic } }),
  )
  await t.throwsAsync(
    inspect('private/app', { [registry.host]: { auth: basic }, [`${registry.host}/private/app`]: wrong }),
    {
      code: 'ERR_REGISTRY_UNAUTHORIZED',
    },
  )
})

test('mirrors are tried in order, each error is kept, and the policy judges the name that was asked for', async (t) => {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const key = generateSigningKey()
  const pushed = await pushLayers(registry, folder, { name: 'mirror/shop/app' })
  await signImage({ reference: pushed.reference, registry: registry.client(), privatePem: key.privatePem })
  const conf = (more: string) =>
    routeBy(
      parseRegistriesConf(`[[registry]]\nprefix = "origin.example/team"\nlocation = "origin.invalid/team"\n${more}`),
    )
  const mirror = (location: string, from = 'all') =>
    `[[registry.mirror]]\nlocation = "${location}"\npull-from-mirror = "${from}"\n`
  const good = `${registry.host}/mirror/shop`
  const verify = (reference: string, more: string, repository: string) =>
    verifyImage({
      reference,
      registry: registry.client({
        route: conf(more),
        hosts: { 'dead.invalid': '127.0.0.1', 'origin.invalid': '127.0.0.1' },
      }),
      policy: parseSignaturePolicy(
        JSON.stringify({
          default: [{ type: 'reject' }],
          transports: {
            docker: {
              [repository]: [
                {
                  type: 'sigstoreSigned',
                  keyData: key.publicPem,
                  signedIdentity: { type: 'exactRepository', dockerRepository: `${good}/app` },
                },
              ],
            },
          },
        }),
      ),
      resolveKey: () => Promise.reject(new Error('no key by path')),
    })
  const asked = 'origin.example/team/app:1'
  const dead = mirror('dead.invalid:1/x')
  const { manifestDigest } = await verify(
    asked,
    dead + mirror(`${registry.host}/none`) + mirror(good),
    'origin.example/team',
  )
  t.is(manifestDigest, pushed.digest)
  await t.throwsAsync(verify(asked, mirror(good), registry.host), { code: 'ERR_IMAGE_REJECTED' })
  const error = await t.throwsAsync(verify(asked, dead + mirror(`${registry.host}/none`), 'origin.example/team'), {
    code: 'ERR_REGISTRY_MIRRORS',
  })
  for (const part of ['dead.invalid:1/x/app', '/none/app: answers 404', 'origin.invalid/team/app']) {
    t.true(error?.message.includes(part), part)
  }
  // A mirror for digests alone is not asked for what a tag means.
  await t.throwsAsync(verify(asked, mirror(good, 'digest-only'), 'origin.example/team'), {
    message: /origin\.invalid/,
  })
  await t.notThrowsAsync(verify(`origin.example/team/app@${pushed.digest}`, mirror(good), 'origin.example/team'))
  await t.throwsAsync(verify(asked, 'blocked = true\n', 'origin.example/team'), { code: 'ERR_REGISTRY_BLOCKED' })
})
