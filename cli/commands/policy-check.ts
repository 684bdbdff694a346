import { loadConditions } from '#policies/container-conditions'
import type { ContainerRule } from '#policies/container-rule'
import { describeEgress } from '#policies/egress-rule'
import { describeImage } from '#policies/image-rule'
import { lintPolicy } from '#policies/lint'
import { describeSource } from '#policies/permissions'
import { describeSeccomp } from '#policies/seccomp-rule'
import { parseWorkloadPolicy } from '#policies/workload'
import type { CommandSpec } from '../command.ts'
import { readPolicyFile } from '../policy-file.ts'

export const policyCheck: CommandSpec = {
  path: 'policy check',
  summary: 'Checks a workload policy, says what it permits, and warns about what gives the host a view into the guest.',
  operands: 'FILE',
  minOperands: 1,
  maxOperands: 1,
  options: { strict: { type: 'boolean', help: 'exit code 1 when there is a warning' } },
  examples: ['caisson policy check policy.yaml', 'caisson policy check policy.yaml --strict --json'],
  run: async (invocation) => {
    const policy = parseWorkloadPolicy(readPolicyFile(invocation.operand(0)))
    await loadConditions(policy)
    const warnings = lintPolicy(policy)
    const text = [
      ...policy.containers.flatMap(describe),
      ...warnings.map(
        ({ kind, path, message, remedy }) =>
          `${invocation.out.paint('yellow', 'warning')}: ${path}: ${message} (${kind}). ${remedy}`,
      ),
    ].join('\n')
    const containers = policy.containers.map((rule) => ({ ...rule, env: Object.fromEntries(rule.env) }))
    invocation.out.result({ containers, warnings }, text)
    return invocation.flag('strict') && warnings.length > 0 ? 1 : 0
  },
}

function describe(rule: ContainerRule): string[] {
  const command = rule.args.kind === 'from-image' ? 'the image’s own command' : JSON.stringify(rule.args.args)
  return [
    `${rule.name}: up to ${rule.max} of ${rule.sealedImage === undefined ? describeImage(rule) : `the image in ${rule.sealedImage}`}`,
    `  runs      ${command}`,
    `  env       ${[...rule.env.keys()].join(', ') || 'only the image’s'}`,
    `  secrets   ${rule.secrets.map(({ source, path }) => `${describeSource(source)} at ${path}`).join(', ') || 'none'}`,
    `  api       ${apiText(rule)}`,
    `  identity  ${rule.identity === undefined ? 'none' : `${rule.identity.names.join(', ')} at ${rule.identity.path}`}`,
    `  mounts    ${rule.mounts.map(({ kind, path }) => `${kind}:${path}`).join(', ') || 'none'}`,
    `  ports     ${rule.ports.join(', ') || 'none'}`,
    `  egress    ${rule.egress === undefined ? 'anywhere' : rule.egress.map(describeEgress).join('; ') || 'nowhere'}`,
    `  seccomp   ${describeSeccomp(rule.seccomp)}`,
    `  exec      ${rule.exec.map((args) => JSON.stringify(args)).join(', ') || 'none'}`,
    `  logs      ${rule.logs ? 'leave the guest' : 'stay in the guest'}`,
  ]
}

function apiText({ api }: ContainerRule): string {
  if (api === undefined) return 'nothing'
  return [...api.resources, ...(api.token ? ['the token'] : []), ...(api.evidence ? ['evidence'] : [])].join(', ')
}
