/** One container request against one rule, field by field. Each check throws `DeniedError` ERR_POLICY_DENIED. */
import { DeniedError } from '#protocol/errors'
import type { ContainerConditions, JudgedContainer } from './container-conditions.ts'
import type { ContainerRule, MountRule } from './container-rule.ts'
import { describeEnvRule, envAllows, isServiceVariable } from './env-rule.ts'
import { maxBytesOf } from './mount-rule.ts'
import type { ContainerRequest } from './requests.ts'
import { type AskedResources, resourceProblem } from './resource-rule.ts'

/** The command to run: undefined is the image's own. */
export function checkArgs(rule: ContainerRule, asked: readonly string[] | undefined): readonly string[] | undefined {
  const field = `containers.${rule.name}.args`
  if (rule.args.kind === 'from-image') {
    if (asked !== undefined) throw denied(field, "the image's own command", JSON.stringify(asked))
    return undefined
  }
  // An unstated command means the policy's: the host need not know it.
  if (asked !== undefined && !sameList(rule.args.args, asked)) {
    throw denied(field, JSON.stringify(rule.args.args), JSON.stringify(asked))
  }
  return rule.args.args
}

export function checkEnv(rule: ContainerRule, env: readonly string[]): void {
  const seen = new Set<string>()
  for (const entry of env) {
    const split = entry.indexOf('=')
    const name = split < 0 ? entry : entry.slice(0, split)
    const value = entry.slice(split + 1)
    const field = `containers.${rule.name}.env.${name}`
    if (split < 0) throw denied(field, 'NAME=VALUE', entry)
    if (seen.has(name)) throw denied(field, 'once', entry)
    seen.add(name)
    const allowed = rule.env.get(name)
    if (allowed === undefined) {
      if (rule.serviceEnv && isServiceVariable(name, value)) continue
      throw denied(field, listText([...rule.env.keys()]), entry)
    }
    if (!envAllows(allowed, value)) throw denied(field, describeEnvRule(allowed), value)
  }
}

/** The mounts to make: those that are asked for and those that the policy requires. */
export function checkMounts(rule: ContainerRule, request: ContainerRequest): readonly MountRule[] {
  const asked = new Set<string>()
  for (const mount of request.mounts) {
    const field = `containers.${rule.name}.mounts`
    const match = rule.mounts.find((candidate) => candidate.path === mount.destination && candidate.kind === mount.kind)
    if (match === undefined || asked.has(mount.destination)) {
      const allowed = listText(rule.mounts.map((candidate) => `${candidate.kind}:${candidate.path}`))
      throw denied(field, allowed, `${mount.kind}:${mount.destination}`)
    }
    checkVolumeName(`${field}.volume`, match, mount.volume ?? '')
    if (match.readOnly && !mount.readOnly) throw denied(`${field}.readOnly`, 'true', 'false')
    const maxBytes = maxBytesOf(match)
    if (maxBytes !== undefined && mount.sizeLimitBytes > maxBytes) {
      throw denied(`${field}.maxBytes`, String(maxBytes), String(mount.sizeLimitBytes))
    }
    asked.add(mount.destination)
  }
  return rule.mounts.filter((mount) => mount.required || asked.has(mount.path))
}

/** A volume of the container's own has no name; one of the pod need not be named, but is not another. */
function checkVolumeName(field: string, { volume }: MountRule, asked: string): void {
  if (volume !== undefined && asked !== '' && asked !== volume.name) throw denied(field, volume.name, asked)
}

/** The policy's groups are given in any case; the host may know of fewer, not of others. */
export function checkGroups(rule: ContainerRule, asked: readonly number[]): void {
  const other = asked.find((gid) => !rule.groups.includes(gid))
  if (other !== undefined) {
    throw denied(`containers.${rule.name}.groups`, listText(rule.groups.map(String)), String(other))
  }
}

/** @param zero what 0 asks for */
export function checkResources(
  rule: ContainerRule,
  asked: AskedResources,
  zero: 'no limit' | 'unchanged' = 'no limit',
): void {
  const problem = resourceProblem(rule.resources, asked, zero)
  if (problem === undefined) return
  throw denied(`containers.${rule.name}.resources.${problem.name}`, problem.allowed, problem.asked)
}

/** Last, so that conditions are asked about values that the fields' own rules admitted. */
export function checkConditions(container: JudgedContainer, conditions: ContainerConditions | undefined): void {
  const failing = conditions?.failing(container)
  if (failing === undefined) return
  const { name, expression, remedy } = failing.condition
  throw denied(
    `containers.${container.rule.name}.conditions.${name}`,
    `what meets ${expression}`,
    failing.answer,
    remedy,
  )
}

/** An empty request means the rule's value; anything else must equal it. */
export function checkEqual(field: string, allowed: string, asked: string, defaultText: string): void {
  if (asked !== '' && asked !== allowed) throw denied(field, allowed === '' ? defaultText : allowed, asked)
}

export function checkFlag(field: string, allowed: boolean, asked: boolean): void {
  if (asked && !allowed) throw denied(field, 'false', 'true')
}

export function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index])
}

export function listText(values: readonly string[]): string {
  return values.length === 0 ? 'nothing' : values.join(', ')
}

/** @param remedy the tenant's own words, in place of ours */
export function denied(field: string, allowed: string, asked: string, remedy?: string): DeniedError {
  return new DeniedError(
    'ERR_POLICY_DENIED',
    `${field}: the policy allows ${allowed}; asked: ${JSON.stringify(asked)}`,
    {
      field,
      allowed,
      asked,
      hint: remedy ?? `Change ${field} in the policy if this is intended, and register the new initdata digest.`,
    },
  )
}
