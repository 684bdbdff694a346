import { parseWorkloadPolicy } from '#policies/workload'
import type { CommandSpec } from '../command.ts'
import { writeUserFile } from '../files.ts'
import { readPolicyFile } from '../policy-file.ts'

export const policyFlatten: CommandSpec = {
  path: 'policy flatten',
  summary:
    'Writes the one document that a guest gets: included files and shared parts in their places, comments and order kept.\nAll other commands do the same with a policy that includes files.',
  operands: 'FILE',
  minOperands: 1,
  maxOperands: 1,
  options: {
    output: { type: 'string', short: 'o', placeholder: 'FILE', help: 'where to write it; default: standard output' },
  },
  examples: ['caisson policy flatten policy.yaml', 'caisson policy flatten policy.yaml -o policy.flat.yaml'],
  run: async (invocation) => {
    const policy = readPolicyFile(invocation.operand(0))
    parseWorkloadPolicy(policy)
    const output = invocation.string('output')
    if (output !== undefined) writeUserFile(output, policy)
    invocation.out.result({ policy }, output === undefined ? policy : `wrote ${output}`)
    return 0
  },
}
