import { loadConditions } from '#policies/container-conditions'
import { parseScenario } from '#policies/scenario'
import { explainRequest } from '#policies/widen'
import { parseWorkloadPolicy } from '#policies/workload'
import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { readUserFile, writeUserFile } from '../files.ts'
import { readPolicyFile } from '../policy-file.ts'

export const policyExplain: CommandSpec = {
  path: 'policy explain',
  summary:
    'Says why a policy denies a request: every field, what is allowed and what is asked, and the smallest change that would\nadmit it. The request is the first `create` step of a file of cases. For a code that a host saw, use `caisson explain`.',
  operands: 'POLICY CASES',
  minOperands: 2,
  maxOperands: 2,
  options: {
    step: {
      type: 'string',
      placeholder: 'NAME',
      help: 'which step of the file; default: the first that creates a container',
    },
    write: { type: 'string', placeholder: 'FILE', help: 'write the changed policy to FILE; comments and order stay' },
  },
  examples: [
    'caisson policy explain policy.yaml denied.yaml',
    'caisson policy explain policy.yaml denied.yaml --write policy.new.yaml',
  ],
  run: async (invocation) => {
    const [policyFile = '', casesFile = ''] = invocation.operands
    const policy = readPolicyFile(policyFile)
    const conditions = await loadConditions(parseWorkloadPolicy(policy))
    const wanted = invocation.string('step')
    const step = parseScenario(readUserFile(casesFile, 'cases').toString('utf8')).find(
      ({ name, request }) => request !== undefined && (wanted === undefined || name === wanted),
    )
    if (step?.request === undefined) {
      throw new UsageError(
        'ERR_USAGE',
        `${casesFile} has no step that creates a container${wanted === undefined ? '' : ` and is called ${JSON.stringify(wanted)}`}`,
        {
          hint: 'See `caisson policy explain --help`, and docs/policy.md for files of cases.',
        },
      )
    }
    const { denials, changes, patched } = explainRequest(policy, step.request, conditions)
    const target = invocation.string('write')
    if (target !== undefined && patched !== undefined) writeUserFile(target, patched)
    const lines = denials.flatMap(({ field, allowed, asked }) => [
      field,
      `  allowed  ${invocation.out.paint('green', allowed)}`,
      `  asked    ${invocation.out.paint('red', asked)}`,
    ])
    const remedy =
      patched === undefined
        ? 'No wider rule would be the same decision: it is another image, order or number of containers, a condition, or no limit at all.'
        : ['To admit it:', ...changes.map((change) => `  ${change}`)].join('\n')
    invocation.out.result(
      { admitted: denials.length === 0, denials, changes, policy: patched ?? null },
      denials.length === 0 ? 'the policy admits this request' : [...lines, remedy].join('\n'),
    )
    return denials.length === 0 ? 0 : 1
  },
}
