/**
 * The conditions of a policy's containers, compiled. The language is loaded only for a policy that has conditions, so
 * that a guest without any starts without it.
 */
import { MalformedError } from '#protocol/errors'
import type { CompiledCondition, ConditionValue } from './condition.ts'
import type { ConditionRule } from './condition-rule.ts'
import type { ContainerRule } from './container-rule.ts'
import { type MountRule, maxBytesOf } from './mount-rule.ts'
import { type ContainerRequest, nameAndValue } from './requests.ts'
import type { WorkloadPolicy } from './workload.ts'

/** A container that the fields' own rules admitted: what conditions are asked about. */
export interface JudgedContainer {
  readonly rule: ContainerRule
  readonly request: ContainerRequest
  /** What the guest pulls (`admittedReference`). */
  readonly reference: string | { readonly resource: string }
  /** Those that are made. */
  readonly mounts: readonly MountRule[]
}

export interface ContainerConditions {
  /** The first condition that does not hold, with what it said instead of true. */
  failing(container: JudgedContainer): { readonly condition: ConditionRule; readonly answer: string } | undefined
}

const HINT = 'docs/policy.md says what conditions may use: `request` and its members.'

/** Throws `MalformedError` ERR_POLICY_MALFORMED, naming path and line of a condition that cannot be used. */
export async function loadConditions(policy: WorkloadPolicy): Promise<ContainerConditions | undefined> {
  if (policy.containers.every(({ conditions }) => conditions.length === 0)) return undefined
  const { ConditionCompiler } = await import('./condition.ts')
  const compiler = new ConditionCompiler({ variables: { request: 'map' }, loops: 1, hint: HINT })
  // By their text: the same text means the same wherever it stands.
  const compiled = new Map<string, CompiledCondition>()
  for (const { name, conditions } of policy.containers) {
    for (const { name: condition, expression, line } of conditions) {
      try {
        compiled.set(expression, compiler.compile(expression))
      } catch (cause) {
        if (!(cause instanceof MalformedError)) throw cause
        const text = `policy line ${line}: containers.${name}.conditions.${condition}: ${cause.message}`
        throw new MalformedError('ERR_POLICY_MALFORMED', text, { hint: HINT, cause })
      }
    }
  }
  return {
    failing: (container) => {
      const values = { request: requestValue(container) }
      for (const condition of container.rule.conditions) {
        // Not loaded is not met.
        const result = compiled.get(condition.expression)?.(values) ?? { problem: 'the condition is not loaded' }
        if ('problem' in result) return { condition, answer: `no answer: ${result.problem}` }
        if (!result.answer) return { condition, answer: 'false' }
      }
      return undefined
    },
  }
}

/**
 * What would run, as far as it is known before the image is. Of the host's words, only those that decide it: a condition that
 * could be met by others would hold nothing.
 */
function requestValue({ rule, request, reference, mounts }: JudgedContainer): ConditionValue {
  const args = rule.args.kind === 'exact' ? rule.args.args : request.args
  const { memoryBytes, cpuQuotaUs, cpuPeriodUs, pids } = request.resources
  return {
    name: rule.name,
    // A sealed one is not known yet.
    ...(typeof reference === 'string' ? { image: reference } : {}),
    ...(args === undefined ? {} : { args }),
    env: new Map(request.env.map((entry) => nameAndValue(entry))),
    user: request.user === '' ? (rule.user ?? '') : request.user,
    workingDir: request.workingDir === '' ? (rule.workingDir ?? '') : request.workingDir,
    mounts: mounts.map((mount) => {
      const { kind, path, readOnly } = mount
      const maxBytes = maxBytesOf(mount)
      return { kind, path, readOnly, ...(maxBytes === undefined ? {} : { maxBytes }) }
    }),
    terminal: request.terminal,
    stdin: request.stdin,
    resources: { memoryBytes, cpuQuotaUs, cpuPeriodUs, pids },
  }
}
