import { diffPolicies } from '#policies/diff'
import { parseWorkloadPolicy } from '#policies/workload'
import type { CommandSpec } from '../command.ts'
import { readPolicyFile } from '../policy-file.ts'

export const policyDiff: CommandSpec = {
  path: 'policy diff',
  summary:
    'Says what a changed policy newly allows (+) and newly denies (-). Exit code 1 when it newly allows something.',
  operands: 'OLD NEW',
  minOperands: 2,
  maxOperands: 2,
  options: {},
  examples: ['caisson policy diff policy.old.yaml policy.yaml'],
  run: async (invocation) => {
    const [before = '', after = ''] = invocation.operands
    const policyOf = (file: string) => parseWorkloadPolicy(readPolicyFile(file))
    const difference = diffPolicies(policyOf(before), policyOf(after))
    const { out } = invocation
    const lines = [
      ...difference.allowed.map((item) => out.paint('green', `+ ${item}`)),
      ...difference.denied.map((item) => out.paint('red', `- ${item}`)),
    ]
    out.result(difference, lines.length === 0 ? 'the policies allow the same' : lines.join('\n'))
    return difference.allowed.length === 0 ? 0 : 1
  },
}
