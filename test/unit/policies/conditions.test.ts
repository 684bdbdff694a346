import test from 'ava'
import fc from 'fast-check'
import { ConditionCompiler } from '#policies/condition'
import { loadConditions } from '#policies/container-conditions'
import { PolicyEngine } from '#policies/engine'
import type { ContainerRequest } from '#policies/requests'
import { parseWorkloadPolicy } from '#policies/workload'
import { DeniedError } from '#protocol/errors'

const DIGEST = `sha256:${'ab'.repeat(32)}`
const REQUEST: ContainerRequest = {
  containerId: 'c1',
  name: 'web',
  image: 'registry.test/web:1',
  args: undefined,
  env: ['MODE=production', 'REGION=eu=west'],
  user: '',
  workingDir: '',
  mounts: [{ kind: 'scratch', destination: '/data', readOnly: false, sizeLimitBytes: 4096 }],
  terminal: false,
  stdin: false,
  sharesProcesses: false,
  resources: { memoryBytes: 2 ** 30, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 7 },
}

function policy(require: string, more = ''): string {
  return `
apiVersion: caisson/v1
kind: WorkloadPolicy
containers:
  - name: web
    image: registry.test/web@${DIGEST}
    args: [serve, --fast]
    user: "33"
    env: { MODE: { glob: "*" }, REGION: { glob: "*" } }
    mounts: [{ kind: scratch, path: /data, maxBytes: 4096 }]
    conditions: [{ name: rule, require: ${JSON.stringify(require)}${more} }]
`
}

async function denialOf(
  require: string,
  change: Partial<ContainerRequest> = {},
  more = '',
): Promise<DeniedError | undefined> {
  const parsed = parseWorkloadPolicy(policy(require, more))
  const engine = new PolicyEngine(parsed, await loadConditions(parsed))
  try {
    engine.admitContainer({ ...REQUEST, ...change })
    return undefined
  } catch (error) {
    if (error instanceof DeniedError) return error
    throw error
  }
}

const HOLD: readonly string[] = [
  'request.env.MODE == "production"',
  'request.env.REGION.startsWith("eu")',
  'request.env.REGION == "eu=west"',
  'request.args == ["serve", "--fast"]',
  'request.user == "33" && request.name == "web"',
  `request.image.endsWith("@${DIGEST}")`,
  'request.mounts.all(m, m.kind == "scratch" && m.maxBytes <= 4096)',
  'request.resources.memoryBytes >= 1073741824 && request.resources.pids < 8',
  'has(request.env.DEBUG) == false',
  '!request.terminal && !request.stdin',
]
for (const expression of HOLD) {
  test(`the condition ${expression} admits a request that meets it`, async (t) => {
    t.is((await denialOf(expression))?.message, undefined)
  })
}

const FAIL: readonly [why: string, expression: string, answer: RegExp][] = [
  ['does not hold', 'request.env.MODE == "test"', /^false$/],
  ['names a variable that is not set', 'request.env.DEBUG == "1"', /^no answer: /],
  ['names what a request has not', 'request.namespace == "x"', /^no answer: /],
  ['is no answer', 'request.env.MODE', /^no answer: .*string/],
  ['compares other types', 'request.resources.pids < "8"', /^no answer: /],
  ['divides by nothing', '1 / request.resources.cpuQuotaUs == 1', /^no answer: /],
]
for (const [why, expression, answer] of FAIL) {
  test(`a request is denied when a condition ${why}`, async (t) => {
    const denial = await denialOf(expression)
    t.is(denial?.field, 'containers.web.conditions.rule')
    t.is(denial?.allowed, `what meets ${expression}`)
    t.regex(denial?.asked ?? '', answer)
  })
}

test('the remedy of a condition is what people read', async (t) => {
  const denial = await denialOf('request.env.MODE == "test"', {}, ', remedy: Ask the shop team.')
  t.is(denial?.hint, 'Ask the shop team.')
})

test('a request that is denied by its fields is not asked about in conditions', async (t) => {
  t.is((await denialOf('false', { env: ['OTHER=1'] }))?.field, 'containers.web.env.OTHER')
})

test('more entries than conditions look at are denied, not cut off', async (t) => {
  const args = Array.from({ length: 1025 }, () => 'x')
  const fromImage = policy('request.args.all(a, a == "x")').replace('args: [serve, --fast]', 'args: from-image')
  const parsed = parseWorkloadPolicy(fromImage)
  const conditions = await loadConditions(parsed)
  const [rule] = parsed.containers
  if (rule === undefined || conditions === undefined) return t.fail()
  const failing = (asked: readonly string[]) =>
    conditions.failing({ rule, request: { ...REQUEST, args: asked }, reference: 'registry.test/web:1', mounts: [] })
  t.is(failing(args.slice(1)), undefined)
  t.regex(failing(args)?.answer ?? '', /^no answer/)
})

const UNUSABLE: readonly [what: string, expression: string][] = [
  ['is no CEL', 'request.env.MODE =='],
  ['is a number', '1 + 1'],
  ['names an unknown variable', 'claims.tee == "snp"'],
  ['has a regular expression', 'request.env.MODE.matches("(a+)+$")'],
  ['has two loops', 'request.mounts.all(m, request.mounts.exists(n, m == n))'],
  ['is too large', Array.from({ length: 150 }, () => 'true').join('||')],
]
for (const [what, expression] of UNUSABLE) {
  test(`a policy with a condition that ${what} is refused with path and line`, async (t) => {
    const parsed = parseWorkloadPolicy(policy(expression))
    const error = await t.throwsAsync(loadConditions(parsed), { code: 'ERR_POLICY_MALFORMED' })
    t.regex(error?.message ?? '', /^policy line \d+: containers\.web\.conditions\.rule: /)
  })
}

test('an engine does not judge by a policy whose conditions were not loaded', async (t) => {
  const parsed = parseWorkloadPolicy(policy('true'))
  t.throws(() => new PolicyEngine(parsed), { code: 'ERR_POLICY_CONDITIONS' })
  const others = parseWorkloadPolicy(policy('request.env.MODE == "production"'))
  const engine = new PolicyEngine(parsed, await loadConditions(others))
  t.throws(() => engine.admitContainer(REQUEST), { code: 'ERR_POLICY_DENIED' })
})

test('whatever a request holds, a condition gives one answer, and the same one again', (t) => {
  const compiler = new ConditionCompiler({ variables: { request: 'map' }, loops: 1, hint: '' })
  const conditions = ['request.env.all(n, request.env[n] == "x")', 'size(request.args) < 3', 'request.a.b == 1'].map(
    (expression) => compiler.compile(expression),
  )
  const values = fc.record({
    env: fc.dictionary(fc.string(), fc.string()),
    args: fc.array(fc.string()),
    a: fc.jsonValue({ maxDepth: 3 }),
  })
  fc.assert(
    fc.property(values, (request) => {
      for (const holds of conditions) {
        const result = holds({ request: request as never })
        t.deepEqual(holds({ request: request as never }), result)
        if ('answer' in result && typeof result.answer !== 'boolean') return false
      }
      return true
    }),
    { numRuns: 200 },
  )
})

test('whatever text is written as a condition, it is compiled or refused', (t) => {
  const compiler = new ConditionCompiler({ variables: { request: 'map' }, loops: 1, hint: '' })
  const words = fc.constantFrom(
    'request',
    '.',
    'env',
    '[',
    ']',
    '"a"',
    '==',
    '&&',
    '(',
    ')',
    '1',
    'all',
    ',',
    '?',
    ':',
    '!',
    '{',
  )
  const texts = fc.oneof(
    fc.array(words, { maxLength: 12 }).map((parts) => parts.join('')),
    fc.string({ unit: 'binary' }),
  )
  t.notThrows(() =>
    fc.assert(
      fc.property(texts, (text) => {
        try {
          return typeof compiler.compile(text) === 'function'
        } catch (error) {
          return error instanceof Error && 'code' in error && error.code === 'ERR_CONDITION'
        }
      }),
      { numRuns: 400 },
    ),
  )
})
