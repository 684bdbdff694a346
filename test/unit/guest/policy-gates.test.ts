/** Every RPC that lets something in or out asks the policy: the agent's service over a sandbox with real containers. */
import test, { type ExecutionContext } from 'ava'
import { EventLog } from '#guest/agent/events'
import { ReasonLog, Refusals } from '#guest/agent/reasons'
import { Sandbox } from '#guest/agent/sandbox'
import { agentService } from '#guest/agent/service'
import { TicketOffice } from '#guest/agent/tickets'
import { nodeLayerCipher } from '#image/node/layer-cipher'
import { Agent, refusalOf } from '#protocol/agent-service'
import { StreamKind } from '#protocol/gen/agent_pb'
import type { HttpTransport } from '#protocol/http-transport'
import { encodeInitdata } from '#protocol/initdata'
import { nodeCrypto } from '#protocol/node/crypto'
import { computeDigest } from '#protocol/oci/digest'
import { TtrpcClient } from '#protocol/ttrpc/client'
import { TtrpcServer } from '#protocol/ttrpc/server'
import { pulledImage } from './container-parts.ts'
import { FakePlatform } from './fake-platform.ts'
import { streamPair } from './stream-pair.ts'

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value))

/** An image without layers: nothing has to be unpacked to have a container. */
const CONFIG = json({
  architecture: 'amd64',
  os: 'linux',
  config: { Entrypoint: ['/bin/server'], StopSignal: 'SIGQUIT' },
  rootfs: { type: 'layers', diff_ids: [] },
})
const MANIFEST = json({
  schemaVersion: 2,
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  config: {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: computeDigest(nodeCrypto, CONFIG),
    size: CONFIG.byteLength,
  },
  layers: [],
})
const IMAGE = `registry.test/app@${computeDigest(nodeCrypto, MANIFEST)}`

const POLICY = `
apiVersion: caisson/v1
kind: WorkloadPolicy
imagePolicy: { default: [{ type: insecureAcceptAnything }] }
containers:
  - { name: quiet, image: ${IMAGE}, exec: [[/bin/ls, -l]] }
  - { name: silent-terminal, image: ${IMAGE}, terminal: true }
  - { name: open, image: ${IMAGE}, logs: allow, stdin: true, ports: [8080], signals: [1] }
`

const registry: HttpTransport = {
  request: async ({ url }) => ({
    status: 200,
    headers: {},
    body: (async function* () {
      yield url.includes('/blobs/') ? CONFIG : MANIFEST
    })(),
  }),
  close: async () => undefined,
}

async function setUp(t: ExecutionContext) {
  const platform = new FakePlatform()
  platform.network.http = async () => registry
  const policyYaml = POLICY
  const initdata = {
    verifier: undefined,
    registryCaPem: [],
    imagePolicyResource: undefined,
    registryCredentialsResource: undefined,
    policyYaml,
    tenantKeyJwk: undefined,
  }
  platform.content.set('/run/caisson/initdata.toml', encodeInitdata(initdata))
  platform.content.set('/proc/meminfo', new TextEncoder().encode('MemTotal:  1048576 kB\n'))
  const reasons = new ReasonLog()
  const refusals = new Refusals(reasons, platform.crypto, () => platform.clock.now())
  const events = new EventLog(() => platform.clock.monotonicMs())
  const tickets = new TicketOffice(platform.crypto, () => platform.clock.monotonicMs())
  const unused = () => t.fail() as never
  const imageTools = async () => ({
    engine: { openLayer: unused, appendVerity: async () => pulledImage().index.verity },
    indexer: '/indexer',
    cipher: nodeLayerCipher,
  })
  const sandboxParts = { platform, events, refusals, reasons, imageTools, createVerifier: unused }
  const sandbox = new Sandbox(sandboxParts)
  const serviceParts = { ...sandboxParts, sandbox, tickets, version: '1', onShutdown: () => undefined }
  const server = new TtrpcServer()
  server.register(Agent, agentService(serviceParts))
  const [guest, host] = streamPair()
  void server.serve(guest)
  const client = new TtrpcClient(host)
  t.teardown(() => client.close())
  await client.unary(Agent.method.startSandbox, {})
  const run = async (name: string, options: { terminal?: boolean; stdin?: boolean } = {}) => {
    await client.unary(Agent.method.createContainer, { containerId: name, name, image: IMAGE, ...options })
    await client.unary(Agent.method.startContainer, { containerId: name })
  }
  const open = (kind: StreamKind, containerId: string, execId = '') =>
    client.unary(Agent.method.openStream, { kind, containerId, execId })
  const port = (number: number) => client.unary(Agent.method.openStream, { kind: StreamKind.PORT, port: number })
  return { client, platform, run, open, port }
}

/** The code of a refusal, or the ticket's shape. */
async function answer(call: Promise<{ ticket?: string }>): Promise<string> {
  try {
    return /^[0-9a-f]{32}$/.test((await call).ticket ?? '') ? 'ticket' : 'done'
  } catch (error) {
    return refusalOf(error)?.code ?? String(error)
  }
}

test('output of a container leaves only where its rule lets logs out', async (t) => {
  const { run, open } = await setUp(t)
  await run('quiet')
  await run('open')
  for (const kind of [StreamKind.STDOUT, StreamKind.STDERR, StreamKind.LOGS]) {
    t.is(await answer(open(kind, 'quiet')), 'ERR_POLICY_DENIED', `kind ${kind}`)
    t.is(await answer(open(kind, 'open')), 'ticket', `kind ${kind}`)
  }
  await run('silent-terminal', { terminal: true })
  t.is(await answer(open(StreamKind.TERMINAL, 'silent-terminal')), 'ERR_POLICY_DENIED')
  t.is(await answer(open(StreamKind.LOGS, 'silent-terminal')), 'ERR_POLICY_DENIED')
})

test('input reaches a container only where its rule lets it in', async (t) => {
  const { run, open } = await setUp(t)
  await run('quiet')
  await run('open', { stdin: true })
  t.is(await answer(open(StreamKind.STDIN, 'quiet')), 'ERR_POLICY_DENIED')
  t.is(await answer(open(StreamKind.STDIN, 'open')), 'ticket')
})

test('a port is open only while a container exists whose rule opens it', async (t) => {
  const { client, run, port } = await setUp(t)
  await run('quiet')
  t.is(await answer(port(8080)), 'ERR_POLICY_DENIED')
  await run('open')
  t.is(await answer(port(8080)), 'ticket')
  t.is(await answer(port(22)), 'ERR_POLICY_DENIED')
  await client.unary(Agent.method.signalProcess, { containerId: 'open', signal: 9 })
  await client.unary(Agent.method.waitProcess, { containerId: 'open' })
  await client.unary(Agent.method.deleteContainer, { containerId: 'open' })
  t.is(await answer(port(8080)), 'ERR_POLICY_DENIED')
})

test('only a listed command is executed, word for word, and its output may be read', async (t) => {
  const { client, platform, run, open } = await setUp(t)
  await run('quiet')
  await run('open')
  const exec = (containerId: string, args: string[], change: object = {}) =>
    answer(client.unary(Agent.method.execProcess, { containerId, execId: 'e', args, ...change }).then(() => ({})))
  for (const args of [['/bin/sh'], ['/bin/ls'], ['/bin/ls', '-l', '/'], ['/bin/ls -l']]) {
    t.is(await exec('quiet', args), 'ERR_POLICY_DENIED', args.join('|'))
  }
  t.is(await exec('quiet', ['/bin/ls', '-l'], { env: ['LD_PRELOAD=/tmp/x'] }), 'ERR_POLICY_DENIED')
  t.is(await exec('quiet', ['/bin/ls', '-l'], { user: '0' }), 'ERR_POLICY_DENIED')
  t.is(await exec('open', ['/bin/ls', '-l']), 'ERR_POLICY_DENIED')
  t.is(platform.execs.length, 0)
  t.is(await exec('quiet', ['/bin/ls', '-l']), 'done')
  t.is(await answer(open(StreamKind.STDOUT, 'quiet', 'e')), 'ticket')
})

test('a signal that is neither a stop nor listed is not delivered', async (t) => {
  const { client, platform, run } = await setUp(t)
  await run('quiet')
  const quiet = [...platform.processesById.values()].at(-1)
  await run('open')
  const open = [...platform.processesById.values()].at(-1)
  const send = (containerId: string, signal: number, all = false) =>
    answer(client.unary(Agent.method.signalProcess, { containerId, signal, all }).then(() => ({})))
  t.is(await send('quiet', 1), 'ERR_POLICY_DENIED')
  t.is(await send('quiet', 1, true), 'ERR_POLICY_DENIED')
  t.is(await send('quiet', 3), 'done')
  t.is(await send('open', 1), 'done')
  t.deepEqual(quiet?.signals, [3])
  t.deepEqual(open?.signals, [1])
  t.false(platform.log.some((step) => step.startsWith('kill')))
})

test('once the sandbox stops, nothing of its containers is served any more', async (t) => {
  const { client, platform, run, open, port } = await setUp(t)
  await run('open')
  const stopped = client.unary(Agent.method.shutdown, {})
  while (platform.codes.at(-1) !== 'agent-stopping') await new Promise((resolve) => setImmediate(resolve))
  t.is(await answer(open(StreamKind.LOGS, 'open')), 'ERR_AGENT_STAGE')
  t.is(await answer(port(8080)), 'ERR_AGENT_STAGE')
  t.is(await answer(client.unary(Agent.method.listContainers, {}).then(() => ({}))), 'ERR_AGENT_STAGE')
  for (const process of platform.processesById.values()) process.end(0)
  await stopped
})
