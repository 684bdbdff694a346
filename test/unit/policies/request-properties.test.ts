/** Requests of any kind against policies of any kind: a verdict each time, the same one again, and no trace of a denial. */
import test from 'ava'
import fc from 'fast-check'
import { loadConditions } from '#policies/container-conditions'
import { PolicyEngine } from '#policies/engine'
import type { ContainerRequest, ExecRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError, MalformedError } from '#protocol/errors'
import { damaged } from '../parser-property.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const TEXT = `apiVersion: caisson/v1
kind: WorkloadPolicy
dns: [10.0.0.0/8]
containers:
  - name: web
    image: registry.test/web@${DIGEST}
    args: [serve]
    env: { A: x, B: [x, y], C: { glob: "*a*b*c*" }, D: { format: ip } }
    serviceEnv: true
    mounts: [{ kind: scratch, path: /d, maxBytes: 4096, required: false }]
    resources: { memory: { max: 64Mi } }
    exec: [[check]]
    ports: [80]
    conditions: [{ name: few, require: 'size(request.env) < 5' }]
  - { name: first, image: "registry.test/first@${DIGEST}", role: init }
`
const POLICY = parseWorkloadPolicy(TEXT)
const CONDITIONS = await loadConditions(POLICY)
const HONEST: ContainerRequest = {
  containerId: 'honest',
  name: 'web',
  image: 'registry.test/web',
  args: undefined,
  env: ['A=x'],
  user: '',
  workingDir: '',
  mounts: [],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 1, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 },
}

const word = fc.oneof(fc.constantFrom('', 'web', 'first', 'x', 'c'), fc.string({ unit: 'binary', maxLength: 40 }))
const variable = fc.oneof(
  fc.constantFrom('A=x', 'B=y', 'C=abc', 'D=10.0.0.1', 'DB_SERVICE_HOST=10.0.0.1'),
  fc.tuple(fc.constantFrom('A', 'B', 'C', 'D', 'E', '__proto__', ''), word).map(([name, value]) => `${name}=${value}`),
  word,
)
const amount = fc.oneof(fc.constantFrom(0, 1, 2 ** 26), fc.maxSafeNat())
const REQUEST: fc.Arbitrary<ContainerRequest> = fc.record({
  containerId: word,
  name: word,
  image: fc.oneof(fc.constantFrom('registry.test/web', `registry.test/web@${DIGEST}`, 'registry.test/first:1'), word),
  args: fc.option(fc.array(fc.oneof(fc.constant('serve'), word), { maxLength: 3 }), { nil: undefined }),
  env: fc.array(variable, { maxLength: 8 }),
  user: word,
  workingDir: word,
  mounts: fc.array(
    fc.record({
      kind: fc.constantFrom('scratch', 'tmpfs', 'bind', ''),
      destination: fc.oneof(fc.constant('/d'), word),
      readOnly: fc.boolean(),
      sizeLimitBytes: amount,
    }),
    { maxLength: 3 },
  ),
  terminal: fc.boolean(),
  stdin: fc.boolean(),
  sharesProcesses: fc.boolean(),
  resources: fc.record({ memoryBytes: amount, cpuQuotaUs: amount, cpuPeriodUs: amount, pids: amount }),
})
/** Half of them differ from an honest one in few places: others are denied at once. */
const ASKED = fc.oneof(
  REQUEST,
  fc.tuple(REQUEST, fc.subarray(Object.keys(HONEST), { maxLength: 2 })).map(([request, keys]) => ({
    ...HONEST,
    ...Object.fromEntries(Object.entries(request).filter(([key]) => keys.includes(key))),
  })),
)

/** "admitted", or the sentence of the denial. */
function verdict(action: () => unknown): string {
  try {
    action()
    return 'admitted'
  } catch (error) {
    if (error instanceof DeniedError) return error.message
    throw error
  }
}

test('any request gets a verdict, the same one again, and a denial changes nothing', (t) => {
  const seen = { admitted: 0, denied: 0 }
  fc.assert(
    fc.property(ASKED, (request) => {
      const engine = new PolicyEngine(POLICY, CONDITIONS)
      const first = verdict(() => engine.admitContainer(request))
      if (first !== 'admitted') {
        seen.denied++
        if (verdict(() => engine.admitContainer(request)) !== first) return false
        return verdict(() => engine.admitContainer(HONEST)) === 'admitted'
      }
      seen.admitted++
      return verdict(() => new PolicyEngine(POLICY, CONDITIONS).admitContainer(request)) === first
    }),
    { numRuns: 1000 },
  )
  t.true(seen.admitted > 10 && seen.denied > 100, JSON.stringify(seen))
})

test('any later request gets a verdict as well', (t) => {
  const engine = new PolicyEngine(POLICY, CONDITIONS)
  engine.admitContainer(HONEST)
  const exec: fc.Arbitrary<ExecRequest> = fc.record({
    containerId: fc.oneof(fc.constant('honest'), word),
    args: fc.array(fc.oneof(fc.constant('check'), word), { maxLength: 2 }),
    env: fc.array(variable, { maxLength: 2 }),
    user: word,
    workingDir: word,
    terminal: fc.boolean(),
    stdin: fc.boolean(),
  })
  t.notThrows(() =>
    fc.assert(
      fc.property(exec, word, fc.integer(), amount, (request, name, number, bytes) => {
        const limits = { memoryBytes: bytes, cpuQuotaUs: bytes, cpuPeriodUs: number, pids: bytes }
        const actions: readonly (() => unknown)[] = [
          () => engine.admitExec(request),
          () => engine.admitPort(number),
          () => engine.admitSignal('honest', number, 15),
          () => engine.admitOutput(name, false),
          () => engine.admitStdin(name),
          () => engine.admitLimits('honest', limits),
          () => engine.admitNameServers([name]),
          () => engine.admitApi(name, { kind: 'resource', resource: name }),
        ]
        const verdicts = actions.map(verdict)
        return actions.every((action, index) => verdict(action) === verdicts[index])
      }),
      { numRuns: 300 },
    ),
  )
})

test('a damaged policy is refused with its line, or judges', (t) => {
  t.notThrows(() =>
    fc.assert(
      fc.property(damaged(TEXT), REQUEST, (text, request) => {
        try {
          const policy = parseWorkloadPolicy(text)
          if (policy.containers.some(({ conditions }) => conditions.length > 0)) return true
          verdict(() => new PolicyEngine(policy).admitContainer(request))
          return true
        } catch (error) {
          return error instanceof MalformedError && error.code === 'ERR_POLICY_MALFORMED'
        }
      }),
      { numRuns: 300 },
    ),
  )
})
