import test, { type ExecutionContext } from 'ava'
import { exportJWK, generateKeyPair } from 'jose'
import { EventLog } from '#guest/agent/events'
import { LAST_REPORT_MS, MAX_REASONS } from '#guest/agent/limits'
import { ReasonLog, Refusals } from '#guest/agent/reasons'
import { Sandbox, type SandboxOptions } from '#guest/agent/sandbox'
import { agentService } from '#guest/agent/service'
import { TicketOffice } from '#guest/agent/tickets'
import { nodeLayerCipher } from '#image/node/layer-cipher'
import { AGENT_MAX_MESSAGE_BYTES, Agent, refusalOf } from '#protocol/agent-service'
import { UnverifiedError } from '#protocol/errors'
import { EventKind, Stage, StreamKind } from '#protocol/gen/agent_pb'
import { encodeInitdata, type Initdata } from '#protocol/initdata'
import type { ReasonReport } from '#protocol/reason-report'
import { openSealedReason } from '#protocol/sealed-reason'
import { parseTenantIdentity, parseTenantKey } from '#protocol/tenant-key'
import { TtrpcClient } from '#protocol/ttrpc/client'
import { TtrpcServer } from '#protocol/ttrpc/server'
import { pulledImage } from './container-parts.ts'
import { FakePlatform } from './fake-platform.ts'
import { streamPair } from './stream-pair.ts'

const POLICY = `
apiVersion: caisson/v1
kind: WorkloadPolicy
imagePolicy: { default: [{ type: reject }] }
containers:
  - name: app
    image: registry.test/app@sha256:${'a'.repeat(64)}
`

const INITDATA: Initdata = {
  verifier: { url: 'https://verifier.test', caPem: 'CA' },
  registryCaPem: [],
  imagePolicyResource: undefined,
  registryCredentialsResource: undefined,
  policyYaml: POLICY,
  tenantKeyJwk: undefined,
}

type Verifier = Awaited<ReturnType<SandboxOptions['createVerifier']>>

function setUp(t: ExecutionContext, options: { initdata?: Uint8Array; verifier?: Verifier } = {}) {
  const { verifier } = options
  const tpm = { submit: async () => new Uint8Array(), eventLog: async () => new Uint8Array() }
  const fake = new FakePlatform()
  const platform = verifier === undefined ? fake : Object.assign(fake, { tpm })
  platform.content.set('/run/caisson/initdata.toml', options.initdata ?? encodeInitdata(INITDATA))
  platform.content.set('/proc/meminfo', new TextEncoder().encode('MemTotal:  1048576 kB\nMemFree: 1 kB\n'))
  const reasons = new ReasonLog()
  const refusals = new Refusals(reasons, platform.crypto, () => platform.clock.now())
  const events = new EventLog(() => platform.clock.monotonicMs())
  const sandbox = new Sandbox({
    platform,
    events,
    refusals,
    reasons,
    imageTools: async () => ({
      engine: {
        openLayer: () => t.fail() as never,
        appendVerity: async () => pulledImage().index.verity,
      },
      indexer: '/indexer',
      cipher: nodeLayerCipher,
    }),
    createVerifier: async () => verifier ?? (t.fail() as never),
  })
  const shutdowns: string[] = []
  const service = agentService({
    platform,
    sandbox,
    events,
    refusals,
    reasons,
    tickets: new TicketOffice(platform.crypto, () => platform.clock.monotonicMs()),
    version: '1.2.3',
    onShutdown: () => shutdowns.push('off'),
  })
  const server = new TtrpcServer()
  server.register(Agent, service)
  const [guest, host] = streamPair()
  void server.serve(guest)
  const client = new TtrpcClient(host)
  t.teardown(() => client.close())
  return { client, platform, reasons, shutdowns, sandbox }
}

const method = Agent.method

/** The code that the host learns, and nothing else of the reason. */
async function refusal(t: ExecutionContext, call: Promise<unknown>): Promise<string> {
  const error = await t.throwsAsync(call)
  const told = refusalOf(error)
  t.regex(told?.correlationId ?? '', /^[0-9a-f]{16}$/)
  return told?.code ?? 'none'
}

test('before the sandbox is attested nothing of containers is served', async (t) => {
  const { client } = setUp(t)
  const containerId = 'c'
  const calls: readonly (() => Promise<unknown>)[] = [
    () => client.unary(method.createContainer, { containerId, image: 'x' }),
    () => client.unary(method.startContainer, { containerId }),
    () => client.unary(method.execProcess, { containerId, execId: 'e', args: ['ls'] }),
    () => client.unary(method.signalProcess, { containerId, signal: 15 }),
    () => client.unary(method.waitProcess, { containerId }),
    () => client.unary(method.resizeTerminal, { containerId, columns: 1, rows: 1 }),
    () => client.unary(method.deleteContainer, { containerId }),
    () => client.unary(method.listContainers, {}),
    () => client.unary(method.getStats, { containerId }),
    () => client.unary(method.openStream, { kind: StreamKind.LOGS, containerId }),
    () => client.unary(method.openStream, { kind: StreamKind.PORT, port: 80 }),
  ]
  for (const call of calls) t.is(await refusal(t, call()), 'ERR_AGENT_STAGE')
  const status = await client.unary(method.getStatus, {})
  t.is(status.stage, Stage.READY)
  t.is(status.agentVersion, '1.2.3')
})

test('on platform none the sandbox starts from its initdata alone, once', async (t) => {
  const { client, platform } = setUp(t)
  await client.unary(method.startSandbox, { hostname: 'pod' })
  t.is((await client.unary(method.getStatus, {})).stage, Stage.ATTESTED)
  t.true(platform.log.includes('hostname pod'))
  // 1 GiB less what the agent keeps.
  t.true(platform.log.includes(`control /sys/fs/cgroup/caisson/memory.max ${(1024 - 160) * 1024 * 1024}`))
  t.deepEqual((await client.unary(method.listContainers, {})).containers, [])
  t.is(await refusal(t, client.unary(method.startSandbox, {})), 'ERR_AGENT_STAGE')
})

test('the endpoint is started for a policy that gives a container access, and for no other', async (t) => {
  const plain = setUp(t)
  await plain.client.unary(method.startSandbox, {})
  t.deepEqual([...plain.platform.served.keys()], [])
  const policyYaml = `${POLICY}    api: { token: true }\n`
  const { client, platform } = setUp(t, { initdata: encodeInitdata({ ...INITDATA, policyYaml }) })
  await client.unary(method.startSandbox, {})
  t.deepEqual([...platform.served.keys()], [8006])
  const taken = setUp(t, { initdata: encodeInitdata({ ...INITDATA, policyYaml }) })
  taken.platform.failing = 'serve'
  await refusal(t, taken.client.unary(method.startSandbox, {}))
  t.is((await taken.client.unary(method.getStatus, {})).stage, Stage.FAILED)
})

test('a policy with a condition that nobody can judge fails the sandbox', async (t) => {
  const policyYaml = `${POLICY}    conditions: [{ name: broken, require: '1 +' }]\n`
  const { client } = setUp(t, { initdata: encodeInitdata({ ...INITDATA, policyYaml }) })
  t.is(await refusal(t, client.unary(method.startSandbox, {})), 'ERR_POLICY_MALFORMED')
})

test('the verifier’s time becomes the guest’s', async (t) => {
  const signedTime = new Date(1_800_000_000_000)
  const verifier = {
    attest: async () => ({ token: '', expiresAt: signedTime, signedTime }),
    getResource: async () => new Uint8Array(),
    token: async () => 'a.b.c',
    evidence: async () => null,
    getCertificate: () => Promise.reject(new Error('never')),
    tell: () => Promise.resolve(),
  }
  const { client, platform } = setUp(t, { verifier })
  await client.unary(method.startSandbox, {})
  t.deepEqual(platform.clock.setTo, signedTime)
})

test('a sandbox that the verifier refuses is failed for ever, and the host learns a code', async (t) => {
  const verifier = {
    attest: () => Promise.reject(new UnverifiedError('ERR_TEST_REFUSED', 'PCR 4 is not what it should be')),
    getResource: async () => new Uint8Array(),
    token: async () => 'a.b.c',
    evidence: async () => null,
    getCertificate: () => Promise.reject(new Error('never')),
    tell: () => Promise.resolve(),
  }
  const { client, reasons, platform } = setUp(t, { verifier })
  const error = await t.throwsAsync(client.unary(method.startSandbox, {}))
  t.false(error?.message.includes('PCR'))
  t.is(refusalOf(error)?.code, 'ERR_TEST_REFUSED')
  const status = await client.unary(method.getStatus, {})
  t.is(status.stage, Stage.FAILED)
  t.is(status.errorCode, 'ERR_TEST_REFUSED')
  t.is(status.correlationId, refusalOf(error)?.correlationId ?? '')
  t.is(await refusal(t, client.unary(method.startSandbox, {})), 'ERR_AGENT_STAGE')
  t.is(await refusal(t, client.unary(method.createContainer, { containerId: 'c' })), 'ERR_AGENT_STAGE')
  const reason = reasons.entries.find((entry) => entry.correlationId === status.correlationId)
  t.is(reason?.message, 'PCR 4 is not what it should be')
  t.deepEqual(platform.codes, ['agent-failed'])
})

test('a pod that is refused as a whole is told to the verifier before the host learns of it, and nobody waits for long', async (t) => {
  const told: ReasonReport[] = []
  const signedTime = new Date(1_800_000_000_000)
  const verifier = {
    attest: async () => ({ token: '', expiresAt: signedTime, signedTime }),
    getResource: async () => new Uint8Array(),
    token: async () => 'a.b.c',
    evidence: async () => null,
    getCertificate: () => Promise.reject(new Error('never')),
    tell: async (report: ReasonReport) => void told.push(report),
  }
  const denied = { sysctls: [{ name: 'kernel.msgmax', value: '1' }] }
  const { client } = setUp(t, { verifier })
  const error = await t.throwsAsync(client.unary(method.startSandbox, denied))
  t.is(refusalOf(error)?.code, 'ERR_POLICY_DENIED')
  t.like(told[0], { correlationId: refusalOf(error)?.correlationId, denial: { field: 'sysctls.kernel.msgmax' } })
  const away = setUp(t, { verifier: { ...verifier, tell: () => new Promise<never>(() => undefined) } })
  const refused = refusal(t, away.client.unary(method.startSandbox, denied))
  while (away.platform.clock.sleepers === 0) await new Promise((resolve) => setImmediate(resolve))
  away.platform.clock.advance(LAST_REPORT_MS)
  t.is(await refused, 'ERR_POLICY_DENIED')
})

test('initdata that is malformed, or names no verifier where one is needed, fails the sandbox', async (t) => {
  const malformed = setUp(t, { initdata: new TextEncoder().encode('version = "9"') })
  t.is(await refusal(t, malformed.client.unary(method.startSandbox, {})), 'ERR_INITDATA_MALFORMED')
  const unused = () => Promise.reject(new Error('unused'))
  const verifier = {
    attest: unused,
    getResource: unused,
    getCertificate: unused,
    token: unused,
    evidence: unused,
    tell: unused,
  }
  const unnamed = setUp(t, { verifier, initdata: encodeInitdata({ ...INITDATA, verifier: undefined }) })
  t.is(await refusal(t, unnamed.client.unary(method.startSandbox, {})), 'ERR_VERIFIER_MISSING')
})

test('a malformed request changes nothing and may be sent again', async (t) => {
  const { client } = setUp(t)
  t.is(await refusal(t, client.unary(method.startSandbox, { hostname: 'not a name' })), 'ERR_REQUEST_MALFORMED')
  t.is((await client.unary(method.getStatus, {})).stage, Stage.READY)
  await client.unary(method.startSandbox, {})
  t.is((await client.unary(method.getStatus, {})).stage, Stage.ATTESTED)
})

test('a broken network fails the sandbox', async (t) => {
  const { client, platform } = setUp(t)
  platform.failing = 'loopback'
  t.is(await refusal(t, client.unary(method.startSandbox, {})), 'ERR_INTERNAL')
  t.is((await client.unary(method.getStatus, {})).stage, Stage.FAILED)
})

test('shutdown is possible in every stage, once, and ends with the machine', async (t) => {
  const ready = setUp(t)
  await ready.client.unary(method.shutdown, {})
  t.deepEqual(ready.shutdowns, ['off'])
  t.is((await ready.client.unary(method.getStatus, {})).stage, Stage.STOPPING)
  t.is(await refusal(t, ready.client.unary(method.shutdown, {})), 'ERR_AGENT_STAGE')
  t.is(await refusal(t, ready.client.unary(method.startSandbox, {})), 'ERR_AGENT_STAGE')
  const running = setUp(t)
  await running.client.unary(method.startSandbox, {})
  await running.client.unary(method.shutdown, {})
  t.deepEqual(running.shutdowns, ['off'])
})

test('events come from the sequence number that was asked for, and go on', async (t) => {
  const { client } = setUp(t)
  const seen: bigint[] = []
  const watching = (async () => {
    for await (const { sequence } of client.serverStream(method.watchEvents, { after: 1n })) {
      seen.push(sequence)
      if (seen.length === 2) return
    }
  })()
  await client.unary(method.startSandbox, {})
  await watching
  t.deepEqual(seen, [2n, 3n])
})

test('with a tenant key each refusal is handed out sealed to it, those from before it was known as well', async (t) => {
  const { privateKey } = await generateKeyPair('ECDH-ES+A256KW', { crv: 'P-256', extractable: true })
  const { kty, crv, x, y, d } = await exportJWK(privateKey)
  const publicJwk = { kty, crv, alg: 'ECDH-ES+A256KW', x, y }
  const identity = parseTenantIdentity(JSON.stringify({ ...publicJwk, d }))
  const secret = 'the reason that nobody but the tenant may read'
  const verifier = {
    attest: () => Promise.reject(new UnverifiedError('ERR_TEST', secret)),
    getResource: () => Promise.reject(new Error('never')),
    token: () => Promise.reject(new Error('never')),
    evidence: () => Promise.reject(new Error('never')),
    getCertificate: () => Promise.reject(new Error('never')),
    tell: () => Promise.resolve(),
  }
  const initdata = encodeInitdata({ ...INITDATA, tenantKeyJwk: JSON.stringify(publicJwk) })
  const { client } = setUp(t, { initdata, verifier })
  await refusal(t, client.unary(method.startContainer, { containerId: 'early' }))
  t.deepEqual((await client.unary(method.getReasons, {})).reasons, [])
  t.is(await refusal(t, client.unary(method.startSandbox, { hostname: 'h' })), 'ERR_TEST')
  const { reasons } = await client.unary(method.getReasons, {})
  t.deepEqual(
    reasons.map(({ code }) => code),
    ['ERR_AGENT_STAGE', 'ERR_TEST'],
  )
  t.false(Buffer.concat(reasons.map(({ sealed }) => sealed)).includes('nobody but'))
  const opened = await Promise.all(reasons.map(({ sealed }) => openSealedReason(identity, sealed)))
  t.like(opened[0], { subject: 'StartContainer early', code: 'ERR_AGENT_STAGE' })
  t.like(opened[1], { subject: 'StartSandbox', message: secret, correlationId: reasons[1]?.correlationId ?? '' })
  const status = await client.unary(method.getStatus, {})
  t.deepEqual(status.sealedReason, reasons[1]?.sealed)
  t.deepEqual((await client.unary(method.getReasons, { after: reasons[1]?.sequence ?? 0n })).reasons, [])
  for await (const event of client.serverStream(method.watchEvents, {})) {
    if (event.kind !== EventKind.REFUSED) continue
    t.deepEqual(event.sealedReason, reasons[1]?.sealed)
    break
  }
})

test('without a tenant key no reason leaves the guest in any form', async (t) => {
  const { client, reasons } = setUp(t)
  await refusal(t, client.unary(method.startContainer, { containerId: 'early' }))
  t.is(reasons.entries.length, 1)
  t.deepEqual((await client.unary(method.getReasons, {})).reasons, [])
  t.is((await client.unary(method.getStatus, {})).sealedReason.byteLength, 0)
})

test('thousands of refusals are handed out in answers that fit into a message', async (t) => {
  const { client, reasons } = setUp(t)
  const { publicKey } = await generateKeyPair('ECDH-ES+A256KW', { crv: 'P-256', extractable: true })
  const { kty, crv, x, y } = await exportJWK(publicKey)
  reasons.sealTo(parseTenantKey(JSON.stringify({ kty, crv, alg: 'ECDH-ES+A256KW', x, y })))
  for (let count = 0; count < 1000; count++) {
    const [correlationId, message] = [count.toString(16).padStart(16, '0'), 'x'.repeat(2048)]
    const texts = { code: 'ERR_TEST', subject: message, message, hint: message, denial: undefined }
    reasons.record({ correlationId, atMs: 0, ...texts })
  }
  let after = 0n
  let seen = 0
  while (true) {
    const answer = await client.unary(method.getReasons, { after })
    if (answer.reasons.length === 0) break
    seen += answer.reasons.length
    after = answer.reasons.at(-1)?.sequence ?? after
    const bytes = answer.reasons.reduce((sum, { sealed }) => sum + sealed.byteLength, 0)
    t.true(bytes < AGENT_MAX_MESSAGE_BYTES - 4096)
  }
  t.is(seen, MAX_REASONS)
})
