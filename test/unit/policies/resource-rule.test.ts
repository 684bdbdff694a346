import test from 'ava'
import fc from 'fast-check'
import { parsePolicyDocument } from '#policies/document'
import { bytesOf, milliCpusOf } from '#policies/quantity'
import { parseResourceRule, resourceProblem } from '#policies/resource-rule'
import { refusesOrKeeps } from '../parser-property.ts'

const NONE = { memoryBytes: 0, cpuQuotaUs: 0, cpuPeriodUs: 0, pids: 0 }
const rule = (yaml: string) => parseResourceRule(parsePolicyDocument(yaml))

test('quantities are read as Kubernetes writes them', (t) => {
  t.deepEqual(['1', '1k', '1Ki', '1.5Gi', '0.0001', '1e3', '-1', '', '1KB', '9999999999999Ti'].map(bytesOf), [
    1,
    1000,
    1024,
    1.5 * 2 ** 30,
    1,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ])
  t.deepEqual(['1', '100m', '0.5', '1.0001', 'm', '1M'].map(milliCpusOf), [1000, 100, 500, 1001, undefined, undefined])
})

test('limits within the policy’s are admitted; more, less, or none where there is a maximum, is named', (t) => {
  const limits = rule('{ memory: { min: 64Mi, max: 1Gi }, cpu: { max: 1500m }, pids: { max: 100 } }')
  const good = { memoryBytes: 2 ** 29, cpuQuotaUs: 150_000, cpuPeriodUs: 100_000, pids: 100 }
  t.is(resourceProblem(limits, good), undefined)
  t.deepEqual(resourceProblem(limits, { ...good, memoryBytes: 2 ** 30 + 1 }), {
    name: 'memory',
    allowed: 'at least 67108864 bytes, at most 1073741824 bytes',
    asked: '1073741825 bytes',
  })
  t.like(resourceProblem(limits, { ...good, memoryBytes: 1 }), { name: 'memory' })
  t.like(resourceProblem(limits, { ...good, cpuQuotaUs: 150_001 }), { name: 'cpu', asked: '1501m' })
  t.like(resourceProblem(limits, { ...good, cpuQuotaUs: 0 }), { name: 'cpu', asked: 'no limit' })
  t.like(resourceProblem(limits, { ...good, pids: 101 }), { name: 'pids' })
})

test('what the policy does not bound, the host chooses', (t) => {
  t.is(resourceProblem(rule('{}'), NONE), undefined)
  t.is(resourceProblem(rule('{}'), { ...NONE, memoryBytes: 5 }), undefined)
})

test('ranges that nothing can satisfy are refused with their line', (t) => {
  t.throws(() => rule('{ memory: { min: 2Gi, max: 1Gi } }'), { message: /line 1: memory has a min above its max/ })
  t.throws(() => rule('{ memory: {} }'), { message: /needs min, max or both/ })
  t.throws(() => rule('{ memory: { max: lots } }'), { message: /must be a quantity/ })
  const yaml = fc.oneof(fc.json(), fc.constant('{ cpu: { max: 1 } }'))
  refusesOrKeeps(
    t,
    yaml,
    rule,
    ({ cpu }) => cpu === undefined || (cpu.min ?? 0) <= (cpu.max ?? Number.POSITIVE_INFINITY),
  )
})
