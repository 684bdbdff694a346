import test from 'ava'
import fc from 'fast-check'
import { diffPolicies } from '#policies/diff'
import { PolicyEngine } from '#policies/engine'
import { lintPolicy } from '#policies/lint'
import { caseFile, requestCase } from '#policies/request-case'
import type { ContainerRequest } from '#policies/requests'
import { parseScenario, runScenario } from '#policies/scenario'
import { explainRequest } from '#policies/widen'
import { parseWorkloadPolicy } from '#policies/workload'
import { refusesOrKeeps } from '../parser-property.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const POLICY = `# our shop
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web # the front
    image: registry.test/web@${DIGEST}
    args: ["serve"]
    env: { MODE: production, LEVEL: [info, debug], URL: { glob: "https://*" } }
    mounts: [{ kind: scratch, path: /data, maxBytes: 4096, readOnly: true }]
    resources: { memory: { max: 64Mi }, cpu: { max: 500m } }
    exec: [["check"]]
    ports: [8080]
`
const REQUEST: ContainerRequest = {
  containerId: 'c',
  name: 'web',
  image: 'registry.test/web:1',
  args: ['serve'],
  env: ['MODE=production'],
  user: '',
  workingDir: '',
  mounts: [{ kind: 'scratch', destination: '/data', readOnly: true, sizeLimitBytes: 0 }],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 2 ** 20, cpuQuotaUs: 10_000, cpuPeriodUs: 100_000, pids: 0 },
}

const CASES = `
apiVersion: caisson/v1
kind: PolicyTest
steps:
  - create: { name: web, image: "registry.test/web:1", args: [serve], resources: { memory: 1Mi, cpu: 10m } }
  - { name: one is enough, create: { name: web, id: two, image: "registry.test/web:1", resources: { memory: 1Mi, cpu: 10m } }, denied: containers.web.max }
  - started: web
  - exec: { container: web, args: [check] }
  - { name: no shell, exec: { container: web, args: [sh] }, denied: containers.web.exec }
  - { name: output stays inside, logs: web, denied: containers.web.logs }
  - port: 8080
  - { port: 22, denied: containers.*.ports }
  - { signal: { container: web, signal: 1 }, denied: containers.web.signals }
  - { name: nothing to ask for, api: { container: web, resource: a/b/c }, denied: containers.web.api }
  - { api: { container: web, call: token }, denied: containers.web.api }
  - removed: web
  - { name: nothing listens any more, port: 8080, denied: containers.*.ports }
`

test('cases of requests are run in order against one policy, and each verdict compared', (t) => {
  const results = runScenario(parseWorkloadPolicy(POLICY), parseScenario(CASES))
  t.deepEqual(
    results.filter(({ ok }) => !ok),
    [],
  )
  t.is(results.length, 13)
})

test('a case whose verdict is another one is told with line, expectation and reason', (t) => {
  const cases = CASES.replace('denied: containers.web.exec', 'denied: containers.web.logs')
  const [failed] = runScenario(parseWorkloadPolicy(POLICY), parseScenario(cases)).filter(({ ok }) => !ok)
  t.like(failed, { name: 'no shell', expected: 'denied: containers.web.logs', found: 'denied: containers.web.exec' })
  t.regex(failed?.reason ?? '', /the policy allows \["check"\]; asked: "\[\\"sh\\"\]"/)
  const wide = runScenario(
    parseWorkloadPolicy(POLICY.replace('ports: [8080]', 'ports: [8080, 22]')),
    parseScenario(CASES),
  )
  t.deepEqual(
    wide.filter(({ ok }) => !ok).map(({ found }) => found),
    ['admitted'],
  )
})

test('whatever is read as cases is read or refused, naming the line', (t) => {
  const yaml = fc.oneof(
    fc.string(),
    fc.json(),
    fc.nat(CASES.length).map((at) => CASES.slice(0, at)),
  )
  refusesOrKeeps(t, yaml, parseScenario, (steps) => steps.every(({ line }) => line >= 1))
})

test('an admitted request needs no explanation, and a denied one names every field at once', (t) => {
  t.deepEqual(explainRequest(POLICY, REQUEST), { denials: [], changes: [], patched: undefined })
  const { denials, changes, patched } = explainRequest(POLICY, {
    ...REQUEST,
    args: ['serve', '--debug'],
    env: ['MODE=test', 'NEW=1'],
    stdin: true,
    resources: { ...REQUEST.resources, memoryBytes: 2 ** 27 },
  })
  t.deepEqual(
    denials.map(({ field }) => field),
    [
      'containers.web.args',
      'containers.web.env.MODE',
      'containers.web.env.NEW',
      'containers.web.stdin',
      'containers.web.resources.memory',
    ],
  )
  t.is(changes[1], 'containers.web.env.MODE: "production" → ["production","test"]')
  t.true(patched?.startsWith('# our shop\n') === true && patched.includes('# the front'), 'comments stay')
})

test('another image, an order, a secret or "no limit" is never answered by a wider rule', (t) => {
  const requests: Partial<ContainerRequest>[] = [
    { image: `registry.test/web@sha256:${'b'.repeat(64)}` },
    { image: 'evil.test/web' },
    { name: 'other' },
    { env: ['URL=http://x'] },
    { resources: { ...REQUEST.resources, memoryBytes: 0 } },
    { env: ['MODE=a', 'MODE=b'] },
  ]
  for (const change of requests) {
    const { denials, patched } = explainRequest(POLICY, { ...REQUEST, ...change })
    t.true(denials.length > 0)
    t.is(patched, undefined, JSON.stringify(change))
  }
})

const ASKED = fc.record({
  args: fc.option(fc.array(fc.constantFrom('serve', 'x', '--y'), { minLength: 1, maxLength: 3 }), { nil: undefined }),
  env: fc.uniqueArray(
    fc.tuple(fc.constantFrom('MODE', 'LEVEL', 'NEW', 'OTHER'), fc.constantFrom('production', 'test', 'info', '')),
    { selector: ([name]) => name },
  ),
  user: fc.constantFrom('', '1', '1:2'),
  workingDir: fc.constantFrom('', '/srv'),
  terminal: fc.boolean(),
  stdin: fc.boolean(),
  mounts: fc.constantFrom(
    [],
    [{ kind: 'scratch', destination: '/data', readOnly: false, sizeLimitBytes: 9000 }],
    [{ kind: 'tmpfs', destination: '/tmp', readOnly: false, sizeLimitBytes: 0 }],
  ),
  resources: fc.record({
    memoryBytes: fc.integer({ min: 1, max: 2 ** 32 }),
    cpuQuotaUs: fc.integer({ min: 1, max: 10 ** 6 }),
  }),
})

test('an explanation’s patch admits the request, and allows nothing beyond what diff lists and the request asks', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(ASKED, ({ env, resources, ...asked }) => {
        const request: ContainerRequest = {
          ...REQUEST,
          ...asked,
          env: env.map(([name, value]) => `${name}=${value}`),
          resources: { ...REQUEST.resources, ...resources },
        }
        const { denials, patched } = explainRequest(POLICY, request)
        if (denials.length === 0) return true
        if (patched === undefined) return false
        const [before, after] = [parseWorkloadPolicy(POLICY), parseWorkloadPolicy(patched)]
        new PolicyEngine(after).admitContainer(request)
        const fields = denials.map(({ field }) => field.split('.').slice(0, 3).join('.'))
        const { allowed } = diffPolicies(before, after)
        return allowed.length > 0 && allowed.every((permission) => fields.some((field) => permission.startsWith(field)))
      }),
      { numRuns: 300 },
    ),
  )
})

test('equal policies differ in nothing, and each widening is listed as newly allowed', (t) => {
  const policy = parseWorkloadPolicy(POLICY)
  t.deepEqual(diffPolicies(policy, parseWorkloadPolicy(POLICY.replace('# our shop\n', ''))), {
    allowed: [],
    denied: [],
  })
  const cases: readonly [string, string, string][] = [
    ['LEVEL: [info, debug]', 'LEVEL: [info, debug, trace]', 'containers.web.env.LEVEL: trace'],
    ['ports: [8080]', 'ports: [8080, 22]', 'containers.web.ports: 22'],
    ['exec: [["check"]]', 'exec: [["check"], ["sh"]]', 'containers.web.exec: ["sh"]'],
    ['ports:', 'logs: allow\n    ports:', 'containers.web.logs: output to the host'],
    ['ports:', 'api: { resources: [a/b/c] }\n    ports:', 'containers.web.api.resources: a/b/c'],
    ['ports:', 'api: { token: true }\n    ports:', 'containers.web.api.token: the attestation token'],
    ['ports:', 'api: { evidence: true }\n    ports:', 'containers.web.api.evidence: evidence over data of its choice'],
    [
      'MODE: production',
      'MODE: production, K: { sealed: a/b/k }',
      'containers.web.env.K: only a sealed secret signed with the key a/b/k',
    ],
    ['max: 64Mi', 'max: 128Mi', 'containers.web.resources.memory: any to 134217728 bytes'],
  ]
  for (const [from, to, allowed] of cases) {
    const more = to.includes('api:') ? ['containers.web.api: what kind of machine the guest is'] : []
    t.deepEqual(diffPolicies(policy, parseWorkloadPolicy(POLICY.replace(from, to))).allowed, [allowed, ...more])
    t.true(diffPolicies(parseWorkloadPolicy(POLICY.replace(from, to)), policy).denied.includes(allowed))
  }
})

test('a condition that goes is told as newly allowed, one that comes as newly denied', (t) => {
  const without = parseWorkloadPolicy(POLICY)
  const conditional = parseWorkloadPolicy(
    POLICY.replace('ports:', `conditions: [{ name: user, require: 'request.user == ""' }]\n    ports:`),
  )
  t.deepEqual(diffPolicies(without, conditional), { allowed: [], denied: ['containers.web.conditions: none'] })
  t.deepEqual(diffPolicies(conditional, without), { allowed: ['containers.web.conditions: none'], denied: [] })
})

test('what a wider rule includes is neither newly allowed nor newly denied', (t) => {
  const policy = parseWorkloadPolicy(POLICY)
  const wider = (from: string, to: string) => parseWorkloadPolicy(POLICY.replace(from, to))
  const cases: readonly [string, string, string, string][] = [
    ['max: 64Mi', 'max: 128Mi', 'resources.memory: any to 67108864 bytes', 'resources.memory: any to 134217728 bytes'],
    ['ports:', 'max: 3\n    ports:', 'max: 1 at the same time', 'max: 3 at the same time'],
    ['MODE: production', 'MODE: { glob: "p*" }', 'env.MODE: production', 'env.MODE: values like p*'],
  ]
  for (const [from, to, narrow, wide] of cases) {
    const after = wider(from, to)
    t.deepEqual(diffPolicies(policy, after), { allowed: [`containers.web.${wide}`], denied: [] }, narrow)
    t.deepEqual(diffPolicies(after, policy), { allowed: [], denied: [`containers.web.${wide}`] }, narrow)
  }
  const narrowed = wider('ports:', 'seccomp: runtime-default\n    ports:')
  const denied = ['containers.web.seccomp: what the guest’s own filter lets through']
  t.deepEqual(diffPolicies(policy, narrowed), { allowed: [], denied })
  t.deepEqual(diffPolicies(narrowed, policy), { allowed: denied, denied: [] })
  const fewer = wider('ports:', 'seccomp: { deny: [ptrace, syslog] }\n    ports:')
  const more = wider('ports:', 'seccomp: { deny: [ptrace] }\n    ports:')
  t.deepEqual(diffPolicies(fewer, more), { allowed: ['containers.web.seccomp: all but ptrace'], denied: [] })
  const confined = wider('ports:', 'egress: [10.0.0.0/8]\n    ports:')
  t.deepEqual(diffPolicies(policy, confined), { allowed: [], denied: ['containers.web.egress: anywhere'] })
})

test('check warns of doors, wide rules, contradictions and rules that nothing can meet, each with a remedy', (t) => {
  const lint = (yaml: string) => lintPolicy(parseWorkloadPolicy(yaml)).map(({ kind, path }) => `${kind} ${path}`)
  t.deepEqual(lint(POLICY), [])
  const change = (from: string, to: string) => lint(POLICY.replace(from, to))
  t.deepEqual(change('ports:', 'logs: allow\n    stdin: true\n    terminal: true\n    ports:'), [
    'open containers.web.logs',
    'open containers.web.stdin',
    'open containers.web.terminal',
  ])
  t.deepEqual(change('["check"]', '["/bin/sh", "-c", "x"]'), ['open containers.web.exec'])
  t.deepEqual(change('https://*', '*'), ['wide containers.web.env.URL'])
  t.deepEqual(change('URL: { glob: "https://*" }', 'LD_PRELOAD: { glob: "/lib/*" }'), [
    'wide containers.web.env.LD_PRELOAD',
  ])
  t.deepEqual(change('ports:', 'capabilities: [SYS_ADMIN]\n    ports:'), ['wide containers.web.capabilities'])
  t.deepEqual(change('ports: [8080]', 'api: { token: true }\n    capabilities: [NET_RAW]\n    ports: [8006]'), [
    'wide containers.web.capabilities',
    'contradictory containers.web.ports',
  ])
  t.deepEqual(change('max: 64Mi', 'max: 64'), ['unreachable containers.web.resources.memory'])
  t.deepEqual(change('}]', '}, { kind: tmpfs, path: /data }]'), ['contradictory containers.web.mounts'])
  const four = '}, { kind: tmpfs, path: /data }, { kind: tmpfs, path: /x }, { kind: tmpfs, path: /x }]'
  t.is(change('}]', four).length, 2)
  t.deepEqual(change('ports:', 'seccomp: { allow: [read, write] }\n    ports:'), ['unreachable containers.web.seccomp'])
  t.deepEqual(change('ports:', 'seccomp: { deny: [execve] }\n    ports:'), ['unreachable containers.web.seccomp'])
  t.deepEqual(change('ports:', 'seccomp: runtime-default\n    ports:'), [])
  // All that is to be mended, not one after the other.
  t.deepEqual(
    change(
      'resources: { memory: { max: 64Mi }, cpu: { max: 500m } }',
      'resources: { memory: { max: 64 }, cpu: { max: "0" } }\n    seccomp: { deny: [execve] }',
    ),
    [
      'unreachable containers.web.seccomp',
      'unreachable containers.web.resources.memory',
      'unreachable containers.web.resources.cpu',
    ],
  )
  const signed = 'image: registry.test/web\n    signedBy: [{ key: default/keys/release }]'
  t.deepEqual(change(`image: registry.test/web@${DIGEST}`, signed), ['wide containers.web.image'])
  t.deepEqual(
    lint(
      `${POLICY.replace(`image: registry.test/web@${DIGEST}`, signed)}  - { name: twin, image: "registry.test/web@${DIGEST}" }\n`,
    ),
    ['wide containers.web.image', 'unreachable containers.twin.image'],
  )
  t.deepEqual(lint(`${POLICY}  - { name: twin, image: "registry.test/web@${DIGEST}" }\n`), [
    'unreachable containers.twin.image',
  ])
})

test('a request is written as a case and read again as the same request, or not written at all', (t) => {
  const word = fc.string({ unit: 'binary', maxLength: 20 }).map((text) => text.toWellFormed())
  const requests: fc.Arbitrary<ContainerRequest> = fc.record({
    containerId: fc.stringMatching(/^[a-z0-9]{1,12}$/),
    name: word,
    image: word,
    args: fc.option(fc.array(word, { maxLength: 3 }), { nil: undefined }),
    // Names that every object has are names like any other.
    env: fc.array(fc.oneof(word, fc.constantFrom('__proto__=x', 'constructor=', '1=y')), { maxLength: 4 }),
    user: word,
    workingDir: word,
    mounts: fc.array(
      fc.record({
        kind: word,
        destination: word,
        readOnly: fc.boolean(),
        sizeLimitBytes: fc.nat(),
        volume: word,
      }),
      { maxLength: 2 },
    ),
    groups: fc.array(fc.nat(), { maxLength: 2 }),
    devices: fc.array(fc.record({ path: word, disk: word }), { maxLength: 2 }),
    terminal: fc.boolean(),
    stdin: fc.boolean(),
    sharesProcesses: fc.boolean(),
    resources: fc.record({
      memoryBytes: fc.nat(),
      cpuQuotaUs: fc.nat(1000).map((milli) => milli * 100),
      cpuPeriodUs: fc.constant(100_000),
      pids: fc.nat(),
    }),
  })
  fc.assert(
    fc.property(requests, (request) => {
      const step = requestCase(request)
      const names = request.env.map((entry) => entry.split('=')[0])
      const isOrdinary = request.env.every((entry) => entry.includes('=')) && new Set(names).size === names.length
      t.is(step !== undefined, isOrdinary)
      if (step === undefined) return
      const [read] = parseScenario(caseFile(JSON.stringify(step)))
      t.deepEqual(read?.request && { ...read.request, env: [...read.request.env].sort() }, {
        ...request,
        env: [...request.env].sort(),
      })
    }),
  )
})
