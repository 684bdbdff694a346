/**
 * What a change of policy newly allows, and what it newly denies. Each policy is spelt out as its permissions; what one
 * has and the other has not is the difference, whatever the text looks like.
 */
import type { ContainerRule } from './container-rule.ts'
import { describeEnvRule } from './env-rule.ts'
import type { Range } from './resource-rule.ts'
import type { WorkloadPolicy } from './workload.ts'

export interface PolicyDifference {
  /** "containers.web.env.MODE: test" */
  readonly allowed: readonly string[]
  readonly denied: readonly string[]
}

export function diffPolicies(before: WorkloadPolicy, after: WorkloadPolicy): PolicyDifference {
  const [old, changed] = [permissionsOf(before), permissionsOf(after)]
  return {
    allowed: [...changed].filter((permission) => !old.has(permission)).sort(),
    denied: [...old].filter((permission) => !changed.has(permission)).sort(),
  }
}

function permissionsOf(policy: WorkloadPolicy): ReadonlySet<string> {
  const image = JSON.stringify(policy.imagePolicy ?? 'the resource that initdata names')
  return new Set([`imagePolicy: ${image}`, ...policy.containers.flatMap(containerPermissions)])
}

function containerPermissions(rule: ContainerRule): string[] {
  const permission = (name: string, text: string): string => `containers.${rule.name}.${name}: ${text}`
  const each = (name: string, values: readonly string[]): string[] => values.map((value) => permission(name, value))
  const flag = (name: string, value: boolean, text: string): string[] => (value ? [permission(name, text)] : [])
  return [
    permission('image', `${rule.repository}@${rule.digest}`),
    permission('args', rule.args.kind === 'from-image' ? 'the image’s own' : JSON.stringify(rule.args.args)),
    ...[...rule.env].flatMap(([name, value]) =>
      value.kind === 'values' ? each(`env.${name}`, value.values) : [permission(`env.${name}`, describeEnvRule(value))],
    ),
    ...flag('serviceEnv', rule.serviceEnv, 'variables of Kubernetes services'),
    permission('user', rule.user ?? 'the image’s own'),
    permission('workingDir', rule.workingDir ?? 'the image’s own'),
    ...rule.mounts.flatMap(({ kind, path, readOnly, maxBytes, required }) => [
      permission('mounts', `${kind} at ${path}${readOnly ? ', read-only' : ''}${required ? ', always' : ''}`),
      permission(
        'mounts',
        `${kind} at ${path} of ${maxBytes === undefined ? 'any size' : `at most ${maxBytes} bytes`}`,
      ),
    ]),
    ...rule.secrets.map(({ resource, path, mode, uid, gid }) =>
      permission('secrets', `${resource} at ${path}, mode ${mode.toString(8)}, owner ${uid}:${gid}`),
    ),
    ...(rule.identity === undefined
      ? []
      : [permission('identity', `${rule.identity.names.join(', ')}, key at ${rule.identity.path}`)]),
    ...flag('readOnlyRoot', !rule.readOnlyRoot, 'writing to the root file system'),
    ...flag('terminal', rule.terminal, 'a terminal'),
    ...flag('stdin', rule.stdin, 'input from the host'),
    ...flag('logs', rule.logs, 'output to the host'),
    ...each(
      'exec',
      rule.exec.map((args) => JSON.stringify(args)),
    ),
    ...each('ports', rule.ports.map(String)),
    ...each('signals', rule.signals.map(String)),
    ...each('capabilities', rule.capabilities),
    permission('resources.memory', describe(rule.resources.memory, ' bytes')),
    permission('resources.cpu', describe(rule.resources.cpu, 'm')),
    permission('resources.pids', describe(rule.resources.pids, '')),
    permission('requires', rule.requires.length === 0 ? 'nothing' : rule.requires.join(', ')),
    permission('role', rule.role),
    permission('max', `${rule.max} at the same time`),
  ]
}

function describe(range: Range | undefined, unit: string): string {
  if (range === undefined) return 'any'
  const { min, max } = range
  return `${min === undefined ? 'any' : `from ${min}${unit}`} ${max === undefined ? 'up' : `to ${max}${unit}`}`
}
