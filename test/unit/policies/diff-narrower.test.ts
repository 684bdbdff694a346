/** A change that only takes away is told as nothing newly allowed; and what is told as nothing new, lets nothing new in. */
import test from 'ava'
import fc from 'fast-check'
import { loadConditions } from '#policies/container-conditions'
import { diffPolicies } from '#policies/diff'
import { PolicyEngine } from '#policies/engine'
import { type Network, parseNetwork } from '#policies/network-address'
import type { ContainerRequest } from '#policies/requests'
import { parseWorkloadPolicy, type WorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'

const DIGEST = `sha256:${'a'.repeat(64)}`

type Json = Record<string, unknown>
interface Written {
  readonly policy: Json
  readonly volumes: Json[]
  readonly web: Json
  readonly late: Json
}

function wide(): Written {
  const volumes: Json[] = [
    { name: 'cache', kind: 'scratch', gid: 3 },
    { name: 'settings', kind: 'config-map', mutable: true },
    { name: 'db', kind: 'luks', key: 'a/b/c', format: 'empty' },
    { name: 'raw', kind: 'block' },
  ]
  const web: Json = {
    name: 'web',
    image: `registry.test/web@${DIGEST}`,
    env: { A: { glob: '*' }, B: ['x', 'y', 'z'], C: { format: 'ip' } },
    serviceEnv: true,
    groups: [4, 5],
    devices: [{ volume: 'raw', path: '/dev/raw' }],
    mounts: [
      { kind: 'scratch', path: '/d', required: false },
      { kind: 'tmpfs', path: '/t', maxBytes: 65_536, required: false },
      { volume: 'cache', path: '/c', required: false },
      { volume: 'settings', path: '/e', required: false },
    ],
    api: { resources: ['a/b/c', 'a/b/d'], token: true, evidence: true },
    identity: { path: '/run/identity', names: ['web.shop.example', 'shop.example'] },
    terminal: true,
    stdin: true,
    logs: 'allow',
    exec: [['x', 'y'], ['z']],
    ports: [80, 8080],
    signals: [1, 2],
    capabilities: ['KILL', 'CHOWN'],
    max: 3,
  }
  const late: Json = { name: 'late', image: `registry.test/late@${DIGEST}` }
  const policy: Json = {
    apiVersion: 'caisson/v1',
    kind: 'WorkloadPolicy',
    volumes,
    shareProcessNamespace: true,
    sysctls: { 'net.core.somaxconn': '1024' },
    hostAliases: [{ address: '10.0.0.9', names: ['db'] }],
    containers: [web, late],
  }
  return { policy, volumes, web, late }
}

function pick<T>(list: readonly T[], at: number): T | undefined {
  return list[at % list.length]
}

function parsed(text: unknown): Network {
  const network = typeof text === 'string' ? parseNetwork(text) : undefined
  if (network === undefined) throw new Error(`no network: ${String(text)}`)
  return network
}

/** One of the two halves of a network, as text. */
function half(text: string, upper: boolean): string {
  const { address, prefix } = parsed(text)
  if (prefix >= address.length * 8) return text
  const bytes = Uint8Array.from(address)
  if (upper) bytes[prefix >> 3] = (bytes[prefix >> 3] ?? 0) | (0x80 >> (prefix & 7))
  return `${addressText(bytes)}/${prefix + 1}`
}

function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.')
  return Array.from({ length: 8 }, (_, at) =>
    (((bytes[at * 2] ?? 0) << 8) | (bytes[at * 2 + 1] ?? 0)).toString(16),
  ).join(':')
}

function without(list: unknown, at: number): unknown[] {
  const items = Array.isArray(list) ? list : []
  return items.length < 2 ? items : items.filter((_, index) => index !== at % items.length)
}

function lower(value: unknown, at: number): number {
  return typeof value === 'number' ? Math.max(4096, value - at) : 1_000_000 + at
}

const TEST_NETWORKS = ['10.0.0.0/8', 'fd00::/8', '0.0.0.0/0', '192.0.2.7', '10.1.0.0/16']

/** Each takes something away, or leaves things as they are where there is nothing left to take. */
const NARROW: readonly ((written: Written, at: number) => void)[] = [
  ({ policy }, at) => {
    const { dns } = policy
    if (!Array.isArray(dns)) policy.dns = TEST_NETWORKS
    else if (at % 2 === 0) policy.dns = without(dns, at)
    else policy.dns = dns.map((text: string, index) => (index === at % dns.length ? half(text, at % 3 === 0) : text))
  },
  ({ web }, at) => {
    const { egress } = web
    if (!Array.isArray(egress)) {
      web.egress = ['10.0.0.0/8', { to: 'fd00::/8', ports: [443, 53, 80] }, { to: '10.0.0.0/8', ports: [1, 2] }]
      return
    }
    const place = egress[at % egress.length] as string | { to: string; ports: number[] }
    const narrower =
      typeof place === 'string'
        ? [half(place, at % 3 === 0), { to: place, ports: [22, 443] }][at % 2]
        : [
            { ...place, to: half(place.to, at % 3 === 0) },
            { ...place, ports: without(place.ports, at) },
          ][at % 2]
    web.egress = at % 5 === 0 ? without(egress, at) : egress.map((old) => (old === place ? narrower : old))
  },
  ({ volumes: [cache] }, at) => {
    if (cache !== undefined) cache.maxBytes = lower(cache.maxBytes, at)
  },
  ({ volumes: [, settings] }) => {
    if (settings === undefined) return
    if (settings.mutable === true) delete settings.mutable
    else settings.digest = DIGEST
  },
  ({ volumes: [, , db] }) => {
    if (db !== undefined) delete db.format
  },
  ({ web }, at) => {
    const mount = pick(web.mounts as Json[], at)
    if (mount !== undefined) mount.readOnly = true
  },
  ({ web }, at) => {
    const mount = pick(web.mounts as Json[], at)
    if (mount !== undefined && mount.volume === undefined) mount.maxBytes = lower(mount.maxBytes, at)
  },
  ({ web }, at) => {
    const mount = pick(web.mounts as Json[], at)
    if (mount !== undefined) mount.required = true
  },
  ({ web }, at) => {
    const env = web.env as Json
    if (at % 3 === 0) env.A = pick(['x', { format: 'port' }, { glob: 'x*' }, ['x', 'y']], at)
    else if (at % 3 === 1) env.B = without(env.B, at)
    else env.C = pick(['10.0.0.1', ['10.0.0.1', '::1']], at)
  },
  ({ web }, at) => {
    const name = pick(['groups', 'exec', 'ports', 'signals', 'capabilities', 'mounts'], at) ?? ''
    web[name] = without(web[name], at)
  },
  ({ web }, at) => {
    const name = pick(['terminal', 'stdin', 'logs', 'serviceEnv', 'identity', 'api'], at) ?? ''
    delete web[name]
  },
  ({ web }) => {
    web.readOnlyRoot = true
  },
  ({ web }, at) => {
    web.max = Math.max(1, Number(web.max) - (at % 2))
  },
  ({ web }, at) => {
    const identity = web.identity as Json | undefined
    if (identity !== undefined) identity.names = without(identity.names, at)
    const api = web.api as Json | undefined
    if (api !== undefined) api.resources = without(api.resources, at)
  },
  ({ web }) => {
    for (const device of (web.devices ?? []) as Json[]) device.readOnly = true
  },
  ({ web }, at) => {
    const conditions = (web.conditions ?? []) as Json[]
    web.conditions = [...conditions, { name: `c${conditions.length}`, require: `size(request.env) < ${9 + (at % 3)}` }]
  },
  ({ late }) => {
    late.requires = ['web']
  },
  ({ web }, at) => {
    web.resources = { memory: { max: 2 ** 30 + 1000 - (at % 1000) } }
  },
  ({ web }, at) => {
    // Fewer and fewer, however often.
    web.seccomp = { deny: ['ptrace', 'syslog', 'bpf'].slice(0, Math.max(1 + (at % 3), deniedBy(web.seccomp))) }
  },
  ({ policy }, at) => {
    delete policy[pick(['shareProcessNamespace', 'sysctls', 'hostAliases'], at) ?? '']
  },
]

function deniedBy(seccomp: unknown): number {
  return (seccomp as { deny: string[] } | undefined)?.deny.length ?? 0
}

type Steps = readonly (readonly [op: number, at: number])[]
const STEPS: fc.Arbitrary<Steps> = fc.array(fc.tuple(fc.nat(NARROW.length - 1), fc.nat(999)), { maxLength: 12 })

function narrowed(...steps: readonly Steps[]): WorkloadPolicy {
  const written = wide()
  let memory: number | undefined
  for (const [op, at] of steps.flat()) {
    NARROW[op]?.(written, at)
    // A later bound may be larger than an earlier one, which would widen.
    const resources = written.web.resources as { memory: { max: number } } | undefined
    if (resources !== undefined) {
      memory = Math.min(memory ?? resources.memory.max, resources.memory.max)
      resources.memory.max = memory
    }
    const env = written.web.env as Json
    env.A = firstOf(written, 'A', env.A)
    env.C = firstOf(written, 'C', env.C)
  }
  return parseWorkloadPolicy(JSON.stringify(written.policy))
}

const CHOSEN = new WeakMap<Written, Map<string, unknown>>()

/** The first value that took the place of the wide one stays: a second one might be another, not a narrower. */
function firstOf(written: Written, name: string, value: unknown): unknown {
  const chosen = CHOSEN.get(written) ?? new Map<string, unknown>()
  CHOSEN.set(written, chosen)
  const isWide =
    typeof value === 'object' &&
    value !== null &&
    ('glob' in value ? value.glob === '*' : 'format' in value && name === 'C')
  if (isWide) return value
  if (!chosen.has(name)) chosen.set(name, value)
  return chosen.get(name)
}

test('a policy that only became narrower is told as allowing nothing new, and as denying what it took away', (t) => {
  const seen = { changed: 0 }
  fc.assert(
    fc.property(STEPS, STEPS, (before, more) => {
      const { allowed, denied } = diffPolicies(narrowed(before), narrowed(before, more))
      if (denied.length > 0) seen.changed++
      t.deepEqual(allowed, [])
    }),
    { numRuns: 300 },
  )
  t.true(seen.changed > 100, JSON.stringify(seen))
})

const amount = fc.constantFrom(0, 4096, 65_536, 1_000_000)
const REQUEST: fc.Arbitrary<ContainerRequest> = fc.record({
  containerId: fc.constant('c'),
  name: fc.constant('web'),
  image: fc.constant('registry.test/web'),
  args: fc.constant(undefined),
  env: fc
    .uniqueArray(fc.constantFrom('A=x', 'A=1', 'B=x', 'B=z', 'C=10.0.0.1', 'C=::2'), { maxLength: 3 })
    .filter((env) => new Set(env.map((entry) => entry[0])).size === env.length),
  user: fc.constant(''),
  workingDir: fc.constant(''),
  mounts: fc.uniqueArray(
    fc.record({
      kind: fc.constantFrom('scratch', 'tmpfs', 'config-map'),
      destination: fc.constantFrom('/d', '/t', '/c', '/e'),
      readOnly: fc.boolean(),
      sizeLimitBytes: amount,
    }),
    { maxLength: 2, selector: ({ destination }) => destination },
  ),
  groups: fc.subarray([4, 5]),
  // A container does not start without its devices.
  devices: fc.constant([{ path: '/dev/raw', disk: 'block-0' }]),
  terminal: fc.boolean(),
  stdin: fc.boolean(),
  sharesProcesses: fc.constant(false),
  resources: fc.record({
    memoryBytes: fc.constantFrom(0, 2 ** 20, 2 ** 30 + 500),
    cpuQuotaUs: fc.constant(0),
    cpuPeriodUs: fc.constant(0),
    pids: fc.constant(0),
  }),
})

/** A request, a name server and a content of a volume: all of what this policy would be asked. */
async function admits(policy: WorkloadPolicy, request: ContainerRequest, server: string): Promise<boolean> {
  const engine = new PolicyEngine(policy, await loadConditions(policy))
  try {
    engine.admitNameServers([server])
    engine.admitContainer(request)
    engine.admitContent(
      engine.admitVolume({ kind: 'config-map', name: 'settings' }),
      DIGEST,
      `sha256:${'b'.repeat(64)}`,
    )
    return true
  } catch (error) {
    if (error instanceof DeniedError) return false
    throw error
  }
}

test('where diff tells of nothing newly allowed, the second policy admits nothing that the first denies', async (t) => {
  const seen = { nothingNew: 0, admitted: 0 }
  const servers = fc.constantFrom('10.0.0.10', '10.1.2.3', 'fd00::1', 'fe00::1', '192.0.2.7')
  await fc.assert(
    fc.asyncProperty(
      STEPS,
      STEPS,
      STEPS,
      fc.array(fc.tuple(REQUEST, servers), { minLength: 12, maxLength: 12 }),
      async (a, b, both, asked) => {
        const [first, second] = [narrowed(both, a.slice(0, 2)), narrowed(both, b)]
        if (diffPolicies(first, second).allowed.length > 0) return true
        seen.nothingNew++
        for (const [request, server] of asked) {
          if (!(await admits(second, request, server))) continue
          seen.admitted++
          if (!(await admits(first, request, server))) return false
        }
        return true
      },
    ),
    { numRuns: 300 },
  )
  t.true(seen.nothingNew > 20 && seen.admitted > 20, JSON.stringify(seen))
})
