/** Limits that the host may set on a container: least and most. What the policy does not bound, the host chooses. */
import type { PolicyNode } from './document.ts'
import { bytesOf, milliCpusOf } from './quantity.ts'

export interface Range {
  readonly min: number | undefined
  readonly max: number | undefined
}

export interface ResourceRule {
  /** Bytes. */
  readonly memory: Range | undefined
  /** Thousandths of a CPU. */
  readonly cpu: Range | undefined
  readonly pids: Range | undefined
}

/** Limits as the host asks for them; 0 is no limit. */
export interface AskedResources {
  readonly memoryBytes: number
  readonly cpuQuotaUs: number
  readonly cpuPeriodUs: number
  readonly pids: number
}

export interface ResourceProblem {
  readonly name: 'memory' | 'cpu' | 'pids'
  readonly allowed: string
  readonly asked: string
}

const DEFAULT_PERIOD_US = 100_000
const MAX_COUNT = 2 ** 31

export function parseResourceRule(node: PolicyNode | undefined): ResourceRule {
  const fields = node?.fields(['memory', 'cpu', 'pids'])
  return {
    memory: range(fields?.get('memory'), quantity(bytesOf, 'must be a quantity such as 512Mi')),
    cpu: range(fields?.get('cpu'), quantity(milliCpusOf, 'must be a quantity such as 1500m or 2')),
    pids: range(fields?.get('pids'), (value) => value.integer(1, MAX_COUNT)),
  }
}

/** The first limit outside the rule. "No limit" is larger than every maximum; what stays unchanged was judged before. */
export function resourceProblem(
  rule: ResourceRule,
  asked: AskedResources,
  zero: 'no limit' | 'unchanged' = 'no limit',
): ResourceProblem | undefined {
  const milliCpus = Math.ceil((asked.cpuQuotaUs * 1000) / (asked.cpuPeriodUs || DEFAULT_PERIOD_US))
  const limits = [
    ['memory', rule.memory, asked.memoryBytes, 'bytes'],
    ['cpu', rule.cpu, milliCpus, 'm'],
    ['pids', rule.pids, asked.pids, ''],
  ] as const
  for (const [name, bounds, value, unit] of limits) {
    if (bounds === undefined || (value === 0 && zero === 'unchanged')) continue
    const effective = value === 0 ? Number.POSITIVE_INFINITY : value
    if (effective >= (bounds.min ?? 0) && effective <= (bounds.max ?? Number.POSITIVE_INFINITY)) continue
    return { name, allowed: describeRange(bounds, unit), asked: value === 0 ? 'no limit' : `${value}${spaced(unit)}` }
  }
  return undefined
}

/** Limits after a change, of which 0 leaves one as it is; the period belongs to its quota. */
export function changedResources(before: AskedResources, asked: AskedResources): AskedResources {
  const { cpuQuotaUs, cpuPeriodUs } = asked.cpuQuotaUs > 0 ? asked : before
  return {
    memoryBytes: asked.memoryBytes > 0 ? asked.memoryBytes : before.memoryBytes,
    cpuQuotaUs,
    cpuPeriodUs,
    pids: asked.pids > 0 ? asked.pids : before.pids,
  }
}

function describeRange({ min, max }: Range, unit: string): string {
  const parts = [
    ...(min === undefined ? [] : [`at least ${min}${spaced(unit)}`]),
    ...(max === undefined ? [] : [`at most ${max}${spaced(unit)}`]),
  ]
  return parts.join(', ')
}

function spaced(unit: string): string {
  return unit === 'bytes' ? ' bytes' : unit
}

function range(node: PolicyNode | undefined, read: (value: PolicyNode) => number): Range | undefined {
  if (node === undefined) return undefined
  const fields = node.fields(['min', 'max'])
  const [min, max] = [fields.get('min'), fields.get('max')]
  const bounds = {
    min: min === undefined ? undefined : read(min),
    max: max === undefined ? undefined : read(max),
  }
  if (bounds.min === undefined && bounds.max === undefined) throw node.fail('needs min, max or both')
  if ((bounds.min ?? 0) > (bounds.max ?? Number.POSITIVE_INFINITY)) throw node.fail('has a min above its max')
  return bounds
}

function quantity(parse: (text: string) => number | undefined, problem: string): (node: PolicyNode) => number {
  return (node) => {
    const value = parse(node.scalarText())
    if (value === undefined) throw node.fail(problem)
    return value
  }
}
