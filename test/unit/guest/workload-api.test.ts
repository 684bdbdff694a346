import test from 'ava'
import fc from 'fast-check'
import { MAX_RUNTIME_DATA_BYTES, parseApiTarget } from '#guest/agent/api-call'
import { ReasonLog, Refusals } from '#guest/agent/reasons'
import { startWorkloadApi, WORKLOAD_API_PORT } from '#guest/agent/workload-api'
import { PolicyEngine } from '#policies/engine'
import type { ContainerRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { damaged, refusesOrKeeps } from '../parser-property.ts'
import { FakePlatform } from './fake-platform.ts'

const DIGEST = `sha256:${'ab'.repeat(32)}`
const RULES = {
  reader: 'api: { resources: [default/keys/one] }',
  speaker: 'api: { token: true }',
  witness: 'api: { evidence: true }',
  plain: 'logs: allow',
}
const PEERS = { reader: 1, speaker: 2, witness: 3, plain: 4 } as const
const HOST = `127.0.0.1:${WORKLOAD_API_PORT}`

/** Four running containers, each with the port from which it calls. */
async function setUp(options: { readonly verifier?: boolean } = {}) {
  const platform = new FakePlatform()
  const rules = Object.entries(RULES).map(
    ([name, rule]) => `  - { name: ${name}, image: "r.test/${name}@${DIGEST}", ${rule} }`,
  )
  const engine = new PolicyEngine(
    parseWorkloadPolicy(`apiVersion: caisson/v1\nkind: WorkloadPolicy\ncontainers:\n${rules.join('\n')}\n`),
  )
  const containers = Object.keys(RULES).map((name, index) => ({ id: name, cgroupPath: `/caisson/c${index + 1}` }))
  for (const { id } of containers) engine.admitContainer(requestOf(id))
  for (const { id, cgroupPath } of containers) platform.peers.set(PEERS[id as keyof typeof PEERS], [cgroupPath])
  const reasons = new ReasonLog()
  const released: string[] = []
  await startWorkloadApi({
    platform,
    policy: engine,
    containers: () => containers,
    refusals: new Refusals(reasons, platform.crypto, () => platform.clock.now()),
    verifier:
      options.verifier === false
        ? undefined
        : {
            getResource: async (path) => {
              released.push(path)
              return new TextEncoder().encode(`content of ${path}`)
            },
            token: async () => 'a.b.c',
            evidence: async (data) => ({ data: Buffer.from(data).toString('hex') }),
          },
  })
  const handle = platform.served.get(WORKLOAD_API_PORT)
  const ask = async (peerPort: number, target: string, change: { method?: string; host?: string } = {}) => {
    if (handle === undefined) throw new Error('nothing listens')
    const { status, body } = await handle({ method: 'GET', host: HOST, target, peerPort, ...change })
    return { status, text: new TextDecoder().decode(body) }
  }
  return { ask, platform, reasons, released }
}

function requestOf(name: string): ContainerRequest {
  return {
    containerId: name,
    name,
    image: `r.test/${name}`,
    args: undefined,
    env: [],
    user: '',
    workingDir: '',
    mounts: [],
    terminal: false,
    stdin: false,
    sharesProcesses: false,
    resources: { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
  }
}

const ONE = '/cdh/resource/default/keys/one'
const CALLS = [
  ONE,
  '/cdh/resource/default/keys/two',
  '/aa/token?token_type=kbs',
  '/aa/evidence?runtime_data=x',
  '/info',
]
const ALLOWED: Readonly<Record<keyof typeof RULES, readonly string[]>> = {
  reader: [ONE, '/info'],
  speaker: ['/aa/token?token_type=kbs', '/info'],
  witness: ['/aa/evidence?runtime_data=x', '/info'],
  plain: [],
}
for (const [name, allowed] of Object.entries(ALLOWED)) {
  test(`the container ${name} is answered what its rule names, and nothing else`, async (t) => {
    const { ask, released } = await setUp()
    for (const target of CALLS) {
      const { status } = await ask(PEERS[name as keyof typeof PEERS], target)
      t.is(status, allowed.includes(target) ? 200 : 403, target)
    }
    t.deepEqual(released, name === 'reader' ? ['default/keys/one'] : [])
  })
}

test('answers have the forms of Confidential Containers, and the token comes without its key', async (t) => {
  const { ask } = await setUp()
  t.is((await ask(PEERS.reader, ONE)).text, 'content of default/keys/one')
  t.deepEqual(JSON.parse((await ask(PEERS.speaker, '/aa/token?token_type=kbs')).text), { token: 'a.b.c' })
  const evidence = await ask(PEERS.witness, '/aa/evidence?runtime_data=AAH_&encoding=base64')
  t.deepEqual(JSON.parse(evidence.text), { data: '0001ff' })
  t.deepEqual(JSON.parse((await ask(PEERS.reader, '/info')).text), { tee: 'tpm', additional_tees: [] })
})

const STRANGERS: readonly [who: string, groups: readonly string[]][] = [
  ['nobody holds its connection any more', []],
  ['it is a process of the guest itself', ['/']],
  ['its control group is of no container', ['/caisson/c99']],
  ['its control group only begins like a container’s', ['/caisson/c11']],
  ['its control group lies elsewhere', ['/other/caisson/c1']],
  ['two containers hold its connection', ['/caisson/c1', '/caisson/c4']],
  ['a container and the guest hold its connection', ['/caisson/c1', '/']],
]
for (const [who, groups] of STRANGERS) {
  test(`a caller is refused when ${who}`, async (t) => {
    const { ask, platform, reasons, released } = await setUp()
    platform.peers.set(9, groups)
    for (const target of CALLS) {
      const { status, text } = await ask(9, target)
      t.is(status, 403)
      t.like(JSON.parse(text), { code: 'ERR_API_CALLER' })
    }
    t.is(reasons.entries[0]?.code, 'ERR_API_CALLER')
    t.deepEqual(released, [])
  })
}

test('processes in control groups below a container’s own are its processes', async (t) => {
  const { ask, platform } = await setUp()
  platform.peers.set(9, ['/caisson/c1/inner', '/caisson/c1'])
  t.is((await ask(9, ONE)).status, 200)
})

const UNANSWERED: readonly [
  what: string,
  status: number,
  target: string,
  change?: { method?: string; host?: string },
][] = [
  ['an unknown path', 404, '/cdh/secrets'],
  ['a path that climbs', 404, '/cdh/resource/default/keys/../keys/one'],
  ['an escaped path', 404, '/cdh/resource/default/keys/%6fne'],
  ['a fourth part of the name', 404, `${ONE}/more`],
  ['a query that the path has not', 400, `${ONE}?plugin=other`],
  ['another type of token', 400, '/aa/token?token_type=coco_as'],
  ['no runtime data', 400, '/aa/evidence'],
  ['a parameter twice', 400, '/aa/evidence?runtime_data=a&runtime_data=b'],
  ['too much runtime data', 400, `/aa/evidence?runtime_data=${'x'.repeat(MAX_RUNTIME_DATA_BYTES + 1)}`],
  ['another method', 405, ONE, { method: 'POST' }],
  ['a Host header of somebody else', 400, ONE, { host: 'attacker.example:8006' }],
  ['no Host header', 400, ONE, { host: '' }],
]
for (const [what, status, target, change] of UNANSWERED) {
  test(`a call with ${what} is answered ${status}`, async (t) => {
    const { ask, released } = await setUp()
    t.is((await ask(PEERS.reader, target, change)).status, status)
    t.deepEqual(released, [])
  })
}

test('without a verifier nothing is given, and what broke is not told', async (t) => {
  const { ask } = await setUp({ verifier: false })
  const { status, text } = await ask(PEERS.reader, ONE)
  t.is(status, 500)
  t.like(JSON.parse(text), { code: 'ERR_RESOURCE_UNAVAILABLE', message: 'the guest could not answer' })
  t.like(JSON.parse((await ask(PEERS.reader, '/info')).text), { tee: 'none' })
})

test('a target of a call is read as one of four calls, or refused', (t) => {
  const words = fc.constantFrom(
    '/cdh',
    '/resource',
    '/a',
    '/aa',
    '/token',
    '?',
    'token_type=kbs',
    '&',
    '..',
    '%2e',
    'info',
  )
  const targets = fc.oneof(
    damaged(ONE),
    damaged('/aa/evidence?runtime_data=abc&encoding=base64'),
    fc.array(words).map((parts) => parts.join('')),
  )
  refusesOrKeeps(t, targets, parseApiTarget, (call, target) => {
    if (call.kind === 'resource') return target === `/cdh/resource/${call.resource}`
    return call.runtimeData.byteLength <= MAX_RUNTIME_DATA_BYTES
  })
})
