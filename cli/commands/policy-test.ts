import { loadConditions } from '#policies/container-conditions'
import { parseScenario, runScenario } from '#policies/scenario'
import { parseWorkloadPolicy } from '#policies/workload'
import type { CommandSpec } from '../command.ts'
import { readUserFile } from '../files.ts'
import { readPolicyFile } from '../policy-file.ts'

export const policyTest: CommandSpec = {
  path: 'policy test',
  summary:
    'Runs files of requests against a policy, each with the verdict that you expect: what must be admitted, and what must\nbe denied, naming the field. Exit code 1 when a verdict is another one.',
  operands: 'POLICY CASES…',
  minOperands: 2,
  maxOperands: 1000,
  options: {},
  examples: [
    'caisson policy test policy.yaml policy-tests.yaml',
    'caisson policy test policy.yaml tests/*.yaml --json',
  ],
  run: async (invocation) => {
    const [policyFile = '', ...cases] = invocation.operands
    const policy = parseWorkloadPolicy(readPolicyFile(policyFile))
    const conditions = await loadConditions(policy)
    const results = cases.flatMap((file) =>
      runScenario(policy, parseScenario(readUserFile(file, 'cases').toString('utf8')), conditions).map((step) => ({
        file,
        ...step,
      })),
    )
    const { out } = invocation
    const failed = results.filter(({ ok }) => !ok)
    const lines = results.flatMap(({ ok, name, file, line, expected, found, reason }) =>
      ok
        ? [`${out.paint('green', 'ok')}      ${name}`]
        : [
            `${out.paint('red', 'FAILED')}  ${name} (${file}:${line})`,
            `        expected ${expected}`,
            `        found    ${found}`,
            ...(reason === undefined ? [] : [`        ${reason}`]),
          ],
    )
    const summary = `${results.length - failed.length} of ${results.length} as expected`
    out.result(
      { passed: results.length - failed.length, failed: failed.length, results },
      [...lines, summary].join('\n'),
    )
    return failed.length === 0 ? 0 : 1
  },
}
