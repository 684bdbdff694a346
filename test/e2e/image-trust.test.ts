/** An attested guest whose images are encrypted, and signed by sigstore bundle: judged and opened inside, with what the verifier releases. */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
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
import { IMAGE_POLICY, Tenant } from './fixtures/tenant.ts'

const KEY = 'default/image-key/web'

interface Context {
  tenant: Tenant
  pod: Pod
  sealed: string
  unsigned: string
}

const test = anyTest as TestFn<Context>

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
  const rules = rule('sealed', t.context.sealed) + rule('unsigned', t.context.unsigned)
  const initdata = tenant.initdata(`apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n${rules}`)
  await tenant.expect(initdata)
  const policy = { default: [{ type: 'caissonBundle', keyData: Buffer.from(publicPem).toString('base64') }] }
  await tenant.admin.putResource(IMAGE_POLICY, Buffer.from(JSON.stringify(policy)))
  t.context.pod = await startPod(honestPlan(tenant, initdata), {
    stateRoot: tenant.path('host'),
    podProgram: CAISSON_POD,
  })
  await attest(t.context.pod)
})

test.after.always(async (t) => {
  await t.context.pod?.stop({ graceMs: 0 })
  await t.context.tenant?.[Symbol.asyncDispose]()
})

test.serial('without a bundle the image is refused, and its key is not asked for', async (t) => {
  const { pod, tenant, unsigned } = t.context
  const refusal = await refusalOf(pod.agent.createContainer({ containerId: 'unsigned', image: unsigned }))
  t.is(refusal.code, 'ERR_IMAGE_UNSIGNED')
  t.false((await tenant.releases()).some((name) => name.includes(KEY)))
})

test.serial('an encrypted image whose key the verifier does not have is refused', async (t) => {
  const { pod, sealed } = t.context
  const refusal = await refusalOf(pod.agent.createContainer({ containerId: 'early', image: sealed }))
  t.regex(refusal.code, /^ERR_(RESOURCE|KBS|VERIFIER)/)
})

test.serial('an encrypted image that a bundle vouches for runs once the verifier has its key', async (t) => {
  const { pod, tenant, sealed } = t.context
  await tenant.admin.putResource(KEY, readFileSync(tenant.path('key')))
  await pod.agent.createContainer({ containerId: 'web', image: sealed })
  t.true((await tenant.releases()).some((name) => name.includes(KEY)))
  await pod.agent.startContainer('web')
  t.is((await pod.agent.wait({ containerId: 'web' })).exitCode, 0)
  const logs = await openGuestStream(pod, { kind: StreamKind.LOGS, containerId: 'web' })
  t.regex(await text(logs), /nginx version/)
})
