import type { ContainerRule } from '#policies/container-rule'
import { lintPolicy } from '#policies/lint'
import { parseWorkloadPolicy } from '#policies/workload'
import type { CommandSpec } from '../command.ts'
import { readUserFile } from '../files.ts'

export const policyCheck: CommandSpec = {
  path: 'policy check',
  summary: 'Checks a workload policy, says what it permits, and warns about what gives the host a view into the guest.',
  operands: 'FILE',
  minOperands: 1,
  maxOperands: 1,
  options: { strict: { type: 'boolean', help: 'exit code 1 when there is a warning' } },
  examples: ['caisson policy check policy.yaml', 'caisson policy check policy.yaml --strict --json'],
  run: async (invocation) => {
    const policy = parseWorkloadPolicy(readUserFile(invocation.operand(0), 'policy').toString('utf8'))
    const warnings = lintPolicy(policy)
    const text = [
      ...policy.containers.flatMap(describe),
      ...warnings.map(({ kind, path, message, remedy }) => `warning: ${path}: ${message} (${kind}). ${remedy}`),
    ].join('\n')
    const containers = policy.containers.map((rule) => ({ ...rule, env: Object.fromEntries(rule.env) }))
    invocation.out.result({ containers, warnings }, text)
    return invocation.flag('strict') && warnings.length > 0 ? 1 : 0
  },
}

function describe(rule: ContainerRule): string[] {
  const command = rule.args.kind === 'from-image' ? 'the image’s own command' : JSON.stringify(rule.args.args)
  return [
    `${rule.name}: up to ${rule.max} of ${rule.repository}@${rule.digest}`,
    `  runs      ${command}`,
    `  env       ${[...rule.env.keys()].join(', ') || 'only the image’s'}`,
    `  secrets   ${rule.secrets.map(({ resource, path }) => `${resource} at ${path}`).join(', ') || 'none'}`,
    `  identity  ${rule.identity === undefined ? 'none' : `${rule.identity.names.join(', ')} at ${rule.identity.path}`}`,
    `  mounts    ${rule.mounts.map(({ kind, path }) => `${kind}:${path}`).join(', ') || 'none'}`,
    `  ports     ${rule.ports.join(', ') || 'none'}`,
    `  exec      ${rule.exec.map((args) => JSON.stringify(args)).join(', ') || 'none'}`,
    `  logs      ${rule.logs ? 'leave the guest' : 'stay in the guest'}`,
  ]
}
