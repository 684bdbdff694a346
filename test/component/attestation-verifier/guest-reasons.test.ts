/** What guests refuse, told to their tenant through the verifier: whole handshakes over TLS, and the commands that read it. */
import { randomBytes } from 'node:crypto'
import test, { type ExecutionContext } from 'ava'
import { createAdminKey } from '#attestation/verifier/admin/authenticator'
import { VerifierAdminClient } from '#attestation/verifier/admin/client'
import { policyExplain } from '#cli/commands/policy-explain'
import { verifierExplain } from '#cli/commands/verifier-explain'
import { requestCase } from '#policies/request-case'
import type { ReasonReport } from '#protocol/reason-report'
import { type Desk, deskAt } from './desk.ts'
import { amd, attesterOf, INITDATA, policyWith, snpReference, snpSource } from './hardware-guests.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const POLICY = `apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: registry.test/web@${DIGEST}
    env: { MODE: production } # as it was agreed
`
const REQUEST = {
  containerId: 'c1',
  name: 'web',
  image: 'registry.test/web:1',
  args: undefined,
  env: ['MODE=debug'],
  user: '0',
  workingDir: '',
  mounts: [],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
}

function report(change: Partial<ReasonReport> = {}): ReasonReport {
  return {
    correlationId: randomBytes(8).toString('hex'),
    code: 'ERR_POLICY_DENIED',
    subject: 'CreateContainer c1',
    message: 'containers.web.env.MODE: the policy allows production; asked: "debug"',
    hint: 'Change it.',
    denial: { field: 'containers.web.env.MODE', allowed: 'production', asked: 'debug\u001b[2J' },
    request: JSON.stringify(requestCase(REQUEST)),
    ...change,
  }
}

async function trusting({ site }: Pick<Desk, 'site'>, client: VerifierAdminClient = site.admin): Promise<void> {
  await client.putPolicy('amd', policyWith([amd.ark.der]))
  await client.putReference(snpReference('web', [{ vcpus: 1, measurement: 'ab'.repeat(48) }]))
}

async function attested(t: ExecutionContext) {
  const desk = await deskAt(t)
  await trusting(desk)
  const guest = attesterOf(desk.site, snpSource())
  await guest.attest({ initdataToml: INITDATA })
  return { ...desk, guest }
}

test('the tenant reads under the host’s id why its guest denied something, and the change that would admit it', async (t) => {
  const { guest, caisson, exitOf, file } = await attested(t)
  const told = report()
  await guest.tell(told)
  const text = await caisson(verifierExplain, told.correlationId)
  t.regex(text, /^[0-9a-f]{16} {2}\S+ {2}guest +refused {2}ERR_POLICY_DENIED$/m)
  t.regex(
    text,
    /NO {2}containers\.web\.env\.MODE\n +expected production\n +found +debug\\u\{1b\}/,
    'and no word of the host steers',
  )
  t.regex(text, /attest +accepted/, 'with the attestation of the guest that said so')
  t.regex(text, new RegExp(`caisson policy explain POLICY --id ${told.correlationId}`))
  const [record] = JSON.parse(await caisson(verifierExplain, told.correlationId, '--json')) as { id: string }[]
  t.is(record?.id, told.correlationId)

  const policy = file('policy.yaml', POLICY)
  const changed = file('changed.yaml')
  const explained = await exitOf(policyExplain, policy, '--id', told.correlationId, '--write', changed)
  t.is(explained.code, 1)
  t.regex(explained.text, /containers\.web\.env\.MODE[\s\S]*containers\.web\.user/, 'every field at once')
  const after = await exitOf(policyExplain, changed, '--id', told.correlationId)
  t.deepEqual([after.code, after.text.trim()], [0, 'the policy admits this request'])

  const exec = report({
    subject: 'ExecProcess c1',
    request: undefined,
    message: 'containers.web.exec: the policy allows nothing',
  })
  await guest.tell(exec)
  const about = await exitOf(policyExplain, policy, '--id', exec.correlationId)
  t.is(about.code, 1)
  t.regex(about.text, /ERR_POLICY_DENIED: containers\.web\.exec/)
  await t.throwsAsync(exitOf(policyExplain, policy, 'cases.yaml', '--id', 'x'), { code: 'ERR_USAGE' })
  await t.throwsAsync(exitOf(policyExplain, policy), { code: 'ERR_USAGE' })
  await t.throwsAsync(exitOf(policyExplain, policy, '--id', 'f'.repeat(16)), { message: /ERR_ATTESTATION_NOT_FOUND/ })
})

test('under an id of the verifier’s own no denial is explained that happened to be told by the same guest', async (t) => {
  const { guest, site, exitOf, file } = await attested(t)
  await guest.tell(report())
  const [attestation] = (await site.admin.listAttestations()).filter(({ stage }) => stage === 'attest')
  const policy = file('policy.yaml', POLICY)
  await t.throwsAsync(exitOf(policyExplain, policy, '--id', attestation?.id ?? ''), {
    code: 'ERR_USAGE',
    message: /no guest has told of it/,
  })
})

test('a denial for order or number is told as it was, although the policy admits the request by itself', async (t) => {
  const { guest, exitOf, file } = await attested(t)
  const admitted = JSON.stringify(requestCase({ ...REQUEST, env: [], user: '' }))
  const policy = file(
    'policy.yaml',
    `${POLICY}  - { name: late, image: "registry.test/late@${DIGEST}", requires: [web] }\n`,
  )
  const fields = ['containers.web.max', 'containers.web.role', 'container_id']
  for (const field of fields) {
    const told = report({
      message: `${field}: the policy allows 1 at the same time; asked: "container 2"`,
      denial: { field, allowed: '1 at the same time', asked: 'container 2' },
      request: admitted,
    })
    await guest.tell(told)
    const { code, text } = await exitOf(policyExplain, policy, '--id', told.correlationId)
    t.is(code, 1, field)
    t.regex(text, new RegExp(`ERR_POLICY_DENIED: ${field}[\\s\\S]*allowed +1 at[\\s\\S]*asked +container 2`))
    t.regex(text, /order or number/)
    t.notRegex(text, /admits this request/)
    const json = await exitOf(policyExplain, policy, '--id', told.correlationId, '--json')
    t.like(JSON.parse(json.text), { admitted: false, denials: [{ field }], policy: null })
  }
  // What it requires was there: the first thing that a policy asked by itself would miss.
  const late = report({
    message: 'containers.late.user: the policy allows nobody; asked: "0"',
    denial: { field: 'containers.late.user', allowed: 'nobody', asked: '0' },
    request: JSON.stringify(requestCase({ ...REQUEST, name: 'late', image: 'registry.test/late', env: [] })),
  })
  await guest.tell(late)
  const { text } = await exitOf(policyExplain, policy, '--id', late.correlationId)
  t.regex(text, /ERR_POLICY_DENIED: containers\.late\.user/)
  t.notRegex(text, /containers\.late\.requires/)
})

test('a guest tells a bounded number of reasons, each once, and nobody without a token tells any', async (t) => {
  const { guest, site } = await attested(t)
  const first = report()
  await guest.tell(first)
  await t.notThrowsAsync(guest.tell(first), 'an answer that was lost may be asked for again')
  await Promise.all(Array.from({ length: 63 }, () => guest.tell(report())))
  await t.throwsAsync(guest.tell(report()), { message: /ERR_REASON_REFUSED/ })
  const records = await site.admin.listAttestations({ limit: 500 })
  t.is(records.filter(({ stage }) => stage === 'guest').length, 64)

  const other = attesterOf(site, snpSource())
  await other.attest({ initdataToml: INITDATA })
  await t.throwsAsync(other.tell(first), { message: /ERR_REASON_REFUSED/ }, 'an id of another guest')
  await t.notThrowsAsync(other.tell(report()))

  const url = `${site.verifier.url}/kbs/v0/reason`
  const send = async (body: string, token: string) =>
    (
      await site.http.request({
        method: 'POST',
        url,
        body: Buffer.from(body),
        headers: { authorization: `Bearer ${token}` },
      })
    ).status
  t.is(await send(JSON.stringify({ id: 'a'.repeat(16), code: 'ERR_X', subject: 's', message: 'm' }), 'a.b.c'), 401)
  const token = await other.token()
  t.is(await send('{"id": "../../x"}', token), 400)
  t.true((await send(' '.repeat(65 * 1024), token)) >= 400)
})

test('whatever a guest tells in vain, it pushes neither its attestation nor what others told out of the tenant’s records', async (t) => {
  const desk = await deskAt(t, { keepAttestations: 3 })
  await trusting(desk)
  const { site } = desk
  const guest = attesterOf(site, snpSource())
  await guest.attest({ initdataToml: INITDATA })
  await guest.tell(report())
  const authorization = `Bearer ${await guest.token()}`
  const url = `${site.verifier.url}/kbs/v0/reason`
  for (let sent = 0; sent < 200; sent++) {
    const { status } = await site.http.request({
      method: 'POST',
      url,
      body: Buffer.from('{}'),
      headers: { authorization },
    })
    t.is(status, 400)
  }
  const stages = (await site.admin.listAttestations({ limit: 500 })).map(({ stage }) => stage)
  t.is(stages.filter((stage) => stage === 'attest').length, 1)
  t.is(stages.filter((stage) => stage === 'guest').length, 1)
  const refused = stages.filter((stage) => stage === 'reason').length
  t.true(refused >= 3 && refused < 200, 'those have a bound of their own')
})

test('reasons of one tenant’s guests are no other tenant’s, even under the same id', async (t) => {
  const { guest, site } = await attested(t)
  const owner = createAdminKey()
  await site.admin.putTenant('shop', { admins: [{ key: owner.publicJwk, role: 'owner' }] })
  const url = `${site.verifier.url}/t/shop`
  const shop = new VerifierAdminClient({ http: site.http, url, adminKey: owner.privateJwk })
  await trusting({ site }, shop)
  const told = report()
  await guest.tell(told)
  await t.throwsAsync(shop.explain(told.correlationId), { message: /ERR_ATTESTATION_NOT_FOUND/ })
  const shopGuest = attesterOf(site, snpSource(), url)
  await shopGuest.attest({ initdataToml: INITDATA })
  await shopGuest.tell({ ...told, message: 'of the shop' })
  t.is((await shop.explain(told.correlationId))[0]?.reason, 'of the shop')
  t.is((await site.admin.explain(told.correlationId))[0]?.reason, told.message)
})
