/** An attested guest whose images are encrypted, and signed by sigstore bundle or OpenPGP key: judged and opened inside, with what the verifier releases. */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import anyTest, { type TestFn } from 'ava'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import { type Pod, startPod } from '#host-shim/pod/pod'
import { encryptLayout } from '#image/node/crypt-layout'
import { pushImage } from '#image/node/push'
import { recipientsWrapper } from '#image/node/recipients'
import { signImageBundle } from '#image/node/sign-bundle'
import { CAISSON_POD } from '#native/host/index'
import { StreamKind } from '#protocol/gen/agent_pb'
import { buildNginxImage } from '#tools/nginx-image/build'
import { attest, honestPlan, refusalOf } from './fixtures/host.ts'
import { IMAGE_POLICY, REGISTRY_NAME, Tenant } from './fixtures/tenant.ts'

const KEY = 'default/image-key/web'
const KEYRING = 'default/keyring/release'
const KEPT = 'default/app/kept'
const STORAGE = 'default/registries-d/release'

interface Context {
  tenant: Tenant
  pod: Pod
  sealed: string
  unsigned: string
  released: string
  forged: string
  lookaside: AsyncDisposable
}

const test = anyTest as TestFn<Context>

/** Debian's gpg with a home of its own. */
class Gpg {
  readonly #home: string

  constructor(home: string) {
    mkdirSync(home, { mode: 0o700 })
    this.#home = home
  }

  /** Makes a key for signing; its public half. */
  key(name: string, algorithm: string): Buffer {
    this.#run('--quick-generate-key', name, algorithm, 'sign', 'never')
    return this.#run('--armor', '--export', name)
  }

  /** The signature of an image, where a lookaside keeps it (containers-signature(5)). */
  sign(reference: string, key: string, lookaside: string): void {
    const [repository = '', digest = ''] = reference.split('@')
    const payload = {
      critical: {
        type: 'atomic container signature',
        image: { 'docker-manifest-digest': digest },
        identity: { 'docker-reference': `${repository}:1` },
      },
      optional: {},
    }
    const folder = `${lookaside}/${repository.slice(repository.indexOf('/') + 1)}@${digest.replace(':', '=')}`
    mkdirSync(folder, { recursive: true })
    writeFileSync(`${folder}/payload`, JSON.stringify(payload))
    this.#run('--local-user', key, '--output', `${folder}/signature-1`, '--sign', `${folder}/payload`)
  }

  #run(...words: readonly string[]): Buffer {
    const quiet = ['--batch', '--yes', '--quiet', '--pinentry-mode', 'loopback', '--passphrase', '']
    return execFileSync('gpg', [...quiet, ...words], { env: { ...process.env, GNUPGHOME: this.#home } })
  }

  [Symbol.dispose](): void {
    execFileSync('gpgconf', ['--kill', 'all'], { env: { ...process.env, GNUPGHOME: this.#home } })
  }
}

/** The lookaside storage, behind the certificate of the registry. */
async function serveFiles(tenant: Tenant): Promise<{ port: number; server: AsyncDisposable }> {
  const tls = { cert: readFileSync(tenant.path('registry.pem')), key: readFileSync(tenant.path('registry.key')) }
  const server = createServer(tls, ({ url = '' }, response) => {
    const file = tenant.path(`lookaside${decodeURIComponent(url)}`)
    response.writeHead(existsSync(file) ? 200 : 404)
    response.end(existsSync(file) ? readFileSync(file) : undefined)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const close = async (): Promise<void> => {
    server.closeAllConnections()
    await new Promise((closed) => server.close(closed))
  }
  return { port: (server.address() as AddressInfo).port, server: { [Symbol.asyncDispose]: close } }
}

test.before(async (t) => {
  const tenant = await Tenant.start()
  t.context.tenant = tenant
  const layout = await buildNginxImage({})
  writeFileSync(tenant.path('key'), randomBytes(32))
  const recipient = `provider:attestation-agent:keyid=kbs:///${KEY}::keypath=${tenant.path('key')}`
  await encryptLayout({ source: layout, target: tenant.path('sealed'), wrap: recipientsWrapper([recipient]) })
  const push = async (name: string) =>
    (
      await pushImage({
        layout: tenant.path('sealed'),
        reference: `${tenant.repository(name)}:1`,
        registry: tenant.registry,
      })
    ).reference
  t.context.sealed = await push('sealed')
  t.context.unsigned = await push('unsigned')
  const { privatePem, publicPem } = tenant.signingKey
  await signImageBundle({ reference: t.context.sealed, registry: tenant.registry, privatePem })
  const rule = (name: string, image: string) =>
    `  - name: ${name}\n    image: ${image}\n    args: ["nginx", "-v"]\n    logs: allow\n`
  t.context.released = await tenant.push(layout, 'released', undefined)
  t.context.forged = await tenant.push(layout, 'forged', undefined)
  using gpg = new Gpg(tenant.path('gnupg'))
  await tenant.admin.putResource(KEYRING, gpg.key('release@shop.test', 'rsa3072'))
  gpg.key('stranger@shop.test', 'ed25519')
  gpg.sign(t.context.released, 'release@shop.test', tenant.path('lookaside'))
  gpg.sign(t.context.forged, 'stranger@shop.test', tenant.path('lookaside'))
  const { port, server } = await serveFiles(tenant)
  t.context.lookaside = server
  const storage = `default-docker:\n  lookaside: https://${REGISTRY_NAME}:${port}\n`
  await tenant.admin.putResource(STORAGE, Buffer.from(storage))
  const { sealed, unsigned, released, forged } = t.context
  const rules = Object.entries({ sealed, unsigned, released, forged }).map(([name, image]) => rule(name, image))
  const signers = `    signedBy: [{ keyData: ${JSON.stringify(publicPem)} }]\n`
  rules.push(
    `${rule('any-version', tenant.repository('sealed'))}${signers}    secrets: [{ resource: ${KEPT}, path: /run/kept }]\n`,
  )
  const manifests = [t.context.sealed.split('@')[1] ?? '']
  await tenant.admin.putResource(KEPT, Buffer.from('kept'), { kind: 'images', manifests })
  rules.push(rule('other-signer', tenant.repository('released')) + signers)
  const text = `apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n${rules.join('')}`
  const initdata = tenant.initdata(text, undefined, { signatureStorageResource: STORAGE })
  await tenant.expect(initdata)
  const bySignature = [{ type: 'signedBy', keyType: 'GPGKeys', keyPath: `kbs:///${KEYRING}` }]
  const policy = {
    default: [{ type: 'caissonBundle', keyData: Buffer.from(publicPem).toString('base64') }],
    transports: {
      docker: { [tenant.repository('released')]: bySignature, [tenant.repository('forged')]: bySignature },
    },
  }
  await tenant.admin.putResource(IMAGE_POLICY, Buffer.from(JSON.stringify(policy)))
  t.context.pod = await startPod(honestPlan(tenant, initdata), {
    stateRoot: tenant.path('host'),
    podProgram: CAISSON_POD,
  })
  await attest(t.context.pod)
})

test.after.always(async (t) => {
  await t.context.pod?.stop({ graceMs: 0 })
  await t.context.lookaside?.[Symbol.asyncDispose]()
  await t.context.tenant?.[Symbol.asyncDispose]()
})

test.serial('without a bundle the image is refused, and its key is not asked for', async (t) => {
  const { pod, tenant, unsigned } = t.context
  const refusal = await refusalOf(
    pod.agent.createContainer({ containerId: 'unsigned', name: 'unsigned', image: unsigned }),
  )
  t.is(refusal.code, 'ERR_IMAGE_UNSIGNED')
  t.false((await tenant.releases()).some((name) => name.includes(KEY)))
})

test.serial('an encrypted image whose key the verifier does not have is refused', async (t) => {
  const { pod, sealed } = t.context
  const refusal = await refusalOf(pod.agent.createContainer({ containerId: 'early', name: 'sealed', image: sealed }))
  t.regex(refusal.code, /^ERR_(RESOURCE|KBS|VERIFIER)/)
})

test.serial('an encrypted image that a bundle vouches for runs once the verifier has its key', async (t) => {
  const { pod, tenant, sealed } = t.context
  await tenant.admin.putResource(KEY, readFileSync(tenant.path('key')))
  await pod.agent.createContainer({ containerId: 'web', name: 'sealed', image: sealed })
  t.true((await tenant.releases()).some((name) => name.includes(KEY)))
  await pod.agent.startContainer('web')
  t.is((await pod.agent.wait({ containerId: 'web' })).exitCode, 0)
  const logs = await openGuestStream(pod, { kind: StreamKind.LOGS, containerId: 'web' })
  t.regex(await text(logs), /nginx version/)
})

test.serial(
  'in place of a digest a signer admits whatever version it signed, and the token names what ran; others are refused',
  async (t) => {
    const { pod, tenant, sealed } = t.context
    const other = `${tenant.repository('released')}:1`
    const refused = pod.agent.createContainer({ containerId: 'other', name: 'other-signer', image: other })
    t.is((await refusalOf(refused)).code, 'ERR_IMAGE_UNSIGNED', 'the policy of all images admits it, its rule does not')
    const image = `${tenant.repository('sealed')}:1`
    const { imageDigest } = await pod.agent.createContainer({ containerId: 'any', name: 'any-version', image })
    t.is(imageDigest, sealed.split('@')[1] ?? '')
    await pod.agent.startContainer('any')
    t.is((await pod.agent.wait({ containerId: 'any' })).exitCode, 0)
    // Released to a token with this manifest, and to no other.
    t.true((await tenant.releases()).some((name) => name.includes(KEPT)))
  },
)

test.serial(
  'an image whose OpenPGP signature lies beside the registry runs, and one that a stranger signed does not',
  async (t) => {
    const { pod, released, forged } = t.context
    const refusal = await refusalOf(pod.agent.createContainer({ containerId: 'forged', name: 'forged', image: forged }))
    t.is(refusal.code, 'ERR_IMAGE_SIGNATURE')
    await pod.agent.createContainer({ containerId: 'released', name: 'released', image: released })
    await pod.agent.startContainer('released')
    t.is((await pod.agent.wait({ containerId: 'released' })).exitCode, 0)
  },
)
