/** Ways into a registry: token server, refresh and bearer tokens, credentials per repository, mirrors and locations. */
import { join } from 'node:path'
import test from 'ava'
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
import { REFRESH, startTokenServer } from './fixtures/token-server.ts'
import { workspace } from './fixtures/workspace.ts'

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
