/** An attested guest that is asked to run what it must not run. One guest for all: a refusal must not harm the next request. */
import { text } from 'node:stream/consumers'
import anyTest, { type TestFn } from 'ava'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import { type Pod, startPod } from '#host-shim/pod/pod'
import { generateSigningKey } from '#image/node/sign'
import { CAISSON_POD } from '#native/host/index'
import { StreamKind } from '#protocol/gen/agent_pb'
import { attest, honestPlan, refusalOf } from './fixtures/host.ts'
import { Tenant } from './fixtures/tenant.ts'

interface Image {
  readonly reference: string
  readonly layer: string
}

interface Context {
  tenant: Tenant
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
  const initdata = tenant.initdata(`apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n${rules.join('')}`)
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

test.serial('what the policy admits runs in the same guest after all these refusals', async (t) => {
  const { images, pod } = t.context
  await pod.agent.createContainer({ containerId: 'good', image: images.good.reference })
  await pod.agent.startContainer('good')
  t.is((await pod.agent.wait({ containerId: 'good' })).exitCode, 0)
  const logs = await openGuestStream(pod, { kind: StreamKind.LOGS, containerId: 'good' })
  t.regex(await text(logs), /nginx version/)
})
