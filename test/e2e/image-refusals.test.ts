/** An attested guest that is asked to run what it must not run. One guest for all: a refusal must not harm the next request. */
import { text } from 'node:stream/consumers'
import anyTest, { type TestFn } from 'ava'
import { exportJWK, generateKeyPair } from 'jose'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import { type Pod, startPod } from '#host-shim/pod/pod'
import { generateSigningKey } from '#image/node/sign'
import { CAISSON_POD } from '#native/host/index'
import { StreamKind } from '#protocol/gen/agent_pb'
import { type ExplainedReason, openSealedReason } from '#protocol/sealed-reason'
import { parseTenantIdentity, type TenantIdentity } from '#protocol/tenant-key'
import { attest, honestPlan, refusalOf } from './fixtures/host.ts'
import { Tenant } from './fixtures/tenant.ts'

interface Image {
  readonly reference: string
  readonly layer: string
}

interface Context {
  tenant: Tenant
  identity: TenantIdentity
  pod: Pod
  images: { good: Image; unsigned: Image; otherKey: Image; tampered: Image; stranger: Image }
}

const test = anyTest as TestFn<Context>

test.before(async (t) => {
  const tenant = await Tenant.start()
  t.context.tenant = tenant
  const key = tenant.signingKey.privatePem
  const images = {
    good: { reference: await tenant.pushNginx('good'), layer: '' },
    unsigned: await tenant.pushSmall('unsigned'),
    otherKey: await tenant.pushSmall('other-key', generateSigningKey().privatePem),
    tampered: await tenant.pushSmall('tampered', key),
    stranger: await tenant.pushSmall('stranger', key),
  }
  tenant.tamper(images.tampered.layer)
  t.context.images = images
  const rules = (['unsigned', 'otherKey', 'tampered'] as const).map(
    (name) => `  - name: ${name.toLowerCase()}\n    image: ${images[name].reference}\n`,
  )
  rules.push(`  - name: good\n    image: ${images.good.reference}\n    args: ["nginx", "-v"]\n    logs: allow\n`)
  const pair = await generateKeyPair('ECDH-ES+A256KW', { crv: 'P-256', extractable: true })
  const { kty, crv, x, y, d } = await exportJWK(pair.privateKey)
  const publicJwk = { kty, crv, alg: 'ECDH-ES+A256KW', x, y }
  t.context.identity = parseTenantIdentity(JSON.stringify({ ...publicJwk, d }))
  const initdata = tenant.initdata(
    `apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n${rules.join('')}`,
    JSON.stringify(publicJwk),
  )
  await tenant.expect(initdata)
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

let count = 0

function create(context: Context, image: Image, changes: { args?: string[]; env?: string[] } = {}): Promise<unknown> {
  count++
  return context.pod.agent.createContainer({
    containerId: `c${count}`,
    image: image.reference,
    env: changes.env ?? [],
    ...(changes.args === undefined ? {} : { args: { values: changes.args } }),
  })
}

function wasFetched({ tenant }: Context, image: Image): boolean {
  return tenant.fetchedBlobs().some((line) => line.includes(image.layer))
}

test.serial('an unsigned image is refused before any layer is fetched', async (t) => {
  const { images } = t.context
  t.is((await refusalOf(create(t.context, images.unsigned))).code, 'ERR_IMAGE_UNSIGNED')
  t.false(wasFetched(t.context, images.unsigned))
})

test.serial('an image signed by another key is refused before any layer is fetched', async (t) => {
  const { images } = t.context
  t.is((await refusalOf(create(t.context, images.otherKey))).code, 'ERR_IMAGE_SIGNATURE')
  t.false(wasFetched(t.context, images.otherKey))
})

test.serial('a layer changed in the registry is refused, and nothing of it becomes visible', async (t) => {
  const { images, pod } = t.context
  t.is((await refusalOf(create(t.context, images.tampered))).code, 'ERR_DIGEST_MISMATCH')
  t.true(wasFetched(t.context, images.tampered))
  t.deepEqual(
    (await pod.agent.listContainers()).map((container) => container.name),
    [],
  )
})

test.serial('an image that the policy does not admit is refused before the registry is asked for it', async (t) => {
  const { images } = t.context
  const refusal = await refusalOf(create(t.context, images.stranger))
  t.is(refusal.code, 'ERR_POLICY_DENIED')
  t.not(refusal.correlationId, '')
  t.false(wasFetched(t.context, images.stranger))
})

test.serial('a command that the policy does not admit is refused, and so is an added variable', async (t) => {
  const { images } = t.context
  t.is((await refusalOf(create(t.context, images.good, { args: ['/bin/sh'] }))).code, 'ERR_POLICY_DENIED')
  t.is((await refusalOf(create(t.context, images.good, { env: ['LD_PRELOAD=/x.so'] }))).code, 'ERR_POLICY_DENIED')
})

/** What the host was given for the tenant, and what the tenant makes of it. */
async function explained(
  context: Context,
  correlationId: string,
): Promise<{ sealed: Buffer; reason: ExplainedReason }> {
  for (let after = 0n; ; ) {
    const reasons = await context.pod.agent.getReasons(after)
    const found = reasons.find((reason) => reason.correlationId === correlationId)
    if (found !== undefined) {
      return { sealed: Buffer.from(found.sealed), reason: await openSealedReason(context.identity, found.sealed) }
    }
    const last = reasons.at(-1)
    if (last === undefined) throw new Error(`the guest gave no reason for ${correlationId}`)
    after = last.sequence
  }
}

test.serial(
  'the tenant reads field, allowed and asked of a denial from what the host was given, and the host reads nothing of it',
  async (t) => {
    const { images } = t.context
    const refusal = await refusalOf(create(t.context, images.good, { args: ['/bin/sh', 'no-such-word'] }))
    const { sealed, reason } = await explained(t.context, refusal.correlationId)
    t.is(reason.code, 'ERR_POLICY_DENIED')
    t.regex(reason.denial?.field ?? '', /args/)
    t.regex(reason.denial?.allowed ?? '', /nginx.*-v/)
    t.regex(reason.denial?.asked ?? '', /no-such-word/)
    t.log(reason)
    const parts = sealed.toString('latin1').split('.')
    const views = [sealed, ...parts.map((part) => Buffer.from(part, 'base64url'))]
    for (const word of ['no-such-word', 'args', 'CreateContainer', 'ERR_']) {
      for (const view of views) t.false(view.includes(word), word)
    }
    const unsigned = await refusalOf(create(t.context, images.unsigned))
    const other = await explained(t.context, unsigned.correlationId)
    t.is(other.reason.code, 'ERR_IMAGE_UNSIGNED')
    t.is(other.sealed.length, sealed.length)
  },
)

test.serial('what the policy admits runs in the same guest after all these refusals', async (t) => {
  const { images, pod } = t.context
  await pod.agent.createContainer({ containerId: 'good', image: images.good.reference })
  await pod.agent.startContainer('good')
  t.is((await pod.agent.wait({ containerId: 'good' })).exitCode, 0)
  const logs = await openGuestStream(pod, { kind: StreamKind.LOGS, containerId: 'good' })
  t.regex(await text(logs), /nginx version/)
})
