/**
 * The conditions of a policy's containers, compiled. The language is loaded only for a policy that has conditions, so
 * that a guest without any starts without it.
 */
import { MalformedError } from '#protocol/errors'
import type { CompiledCondition, ConditionValue } from './condition.ts'
import type { ConditionRule } from './condition-rule.ts'
import type { ContainerRule } from './container-rule.ts'
import type { ContainerRequest } from './requests.ts'
import type { WorkloadPolicy } from './workload.ts'

export interface ContainerConditions {
  /** The first condition that does not hold, with what it said instead of true. */
  failing(
    rule: ContainerRule,
    request: ContainerRequest,
  ): { readonly condition: ConditionRule; readonly answer: string } | undefined
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
    failing: (rule, request) => {
      const values = { request: requestValue(rule, request) }
      for (const condition of rule.conditions) {
        // Not loaded is not met.
        const result = compiled.get(condition.expression)?.(values) ?? { problem: 'the condition is not loaded' }
        if ('problem' in result) return { condition, answer: `no answer: ${result.problem}` }
        if (!result.answer) return { condition, answer: 'false' }
      }
      return undefined
    },
  }
}

/** What would run, as far as it is known before the image is: words of the host that the rule's fields admitted. */
function requestValue(rule: ContainerRule, request: ContainerRequest): ConditionValue {
  const args = rule.args.kind === 'exact' ? rule.args.args : request.args
  const { memoryBytes, cpuQuotaUs, cpuPeriodUs, pids } = request.resources
  return {
    name: rule.name,
    // As asked for, where the host chooses the version.
    image: rule.signedBy === undefined ? `${rule.repository}@${rule.digest}` : request.image,
    ...(args === undefined ? {} : { args }),
    env: new Map(request.env.map((entry) => nameAndValue(entry))),
    user: request.user === '' ? (rule.user ?? '') : request.user,
    workingDir: request.workingDir === '' ? (rule.workingDir ?? '') : request.workingDir,
    mounts: request.mounts.map(({ kind, destination, readOnly, sizeLimitBytes }) => ({
      kind,
      path: destination,
      readOnly,
      maxBytes: sizeLimitBytes,
    })),
    terminal: request.terminal,
    stdin: request.stdin,
    resources: { memoryBytes, cpuQuotaUs, cpuPeriodUs, pids },
  }
}

function nameAndValue(entry: string): [string, string] {
  const split = entry.indexOf('=')
  return [entry.slice(0, split), entry.slice(split + 1)]
}
