import type { AttestationRecord } from '#attestation/store/attestation-log'
import { loadConditions } from '#policies/container-conditions'
import { caseFile } from '#policies/request-case'
import type { ContainerRequest } from '#policies/requests'
import { parseScenario } from '#policies/scenario'
import { type Explanation, explainRequest } from '#policies/widen'
import { parseWorkloadPolicy } from '#policies/workload'
import { UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile, writeUserFile } from '../files.ts'
import { readPolicyFile } from '../policy-file.ts'
import { printable } from '../printable.ts'

export const policyExplain: CommandSpec = {
  path: 'policy explain',
  summary:
    'Says why a policy denies a request: every field, what is allowed and what is asked, and the smallest change that would\nadmit it. The request is the first `create` step of a file of cases, or what a guest told the verifier under the id that\nits host was given.',
  operands: 'POLICY [CASES]',
  minOperands: 1,
  maxOperands: 2,
  options: {
    step: {
      type: 'string',
      placeholder: 'NAME',
      help: 'which step of the file; default: the first that creates a container',
    },
    id: { type: 'string', placeholder: 'ID', help: 'correlation id of a denial, in place of CASES; asks the verifier' },
    write: { type: 'string', placeholder: 'FILE', help: 'write the changed policy to FILE; comments and order stay' },
    ...ADMIN_OPTIONS,
  },
  examples: [
    'caisson policy explain policy.yaml denied.yaml',
    'caisson policy explain policy.yaml denied.yaml --write policy.new.yaml',
    'caisson policy explain policy.yaml --id 4f2c81d09b6a7e35 --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: async (invocation) => {
    const [policyFile = '', casesFile] = invocation.operands
    const id = invocation.string('id')
    if ((id === undefined) === (casesFile === undefined)) throw usage('give either CASES or --id')
    const policy = readPolicyFile(policyFile)
    if (id !== undefined)
      return withAdmin(invocation, async (client) =>
        told(invocation, policy, { id, records: await client.explain(id) }),
      )
    return shown(invocation, await explanationOf(policy, fromFile(casesFile ?? '', invocation.string('step'))))
  },
}

function fromFile(casesFile: string, wanted: string | undefined): ContainerRequest {
  const step = parseScenario(readUserFile(casesFile, 'cases').toString('utf8')).find(
    ({ name, request }) => request !== undefined && (wanted === undefined || name === wanted),
  )
  if (step?.request !== undefined) return step.request
  const called = wanted === undefined ? '' : ` and is called ${JSON.stringify(wanted)}`
  throw usage(`${casesFile} has no step that creates a container${called}`)
}

type Denial = Explanation['denials'][number]

/** About what was there at that moment, which a policy that is asked by itself knows nothing of. */
function isOfTheMoment({ field }: Denial): boolean {
  return /^(container_id|containers\.[^.]+\.(max|requires|role|targetContainer))$/.test(field)
}

const OF_THE_MOMENT =
  'What was there at that moment decides as well, by order or number of containers: the policy by itself would give another answer.'

/**
 * What the guest said under this id; the records of a handshake hold all that it said. Where it is about no container that
 * was to be created, or about what was there already, that is all there is to say.
 */
async function told(
  invocation: Invocation,
  policy: string,
  { id, records }: { readonly id: string; readonly records: readonly AttestationRecord[] },
): Promise<number> {
  const record = records.find(({ stage, id: reported }) => stage === 'guest' && reported === id)
  if (record === undefined)
    throw usage('the verifier knows this id, but no guest has told of it: see `caisson verifier explain`')
  const denials = record.checks.map(({ claim, expected, found }) => ({ field: claim, allowed: expected, asked: found }))
  const recorded = record.facts['request-case']
  const request = recorded === undefined ? undefined : parseScenario(caseFile(recorded))[0]?.request
  if (request !== undefined && !denials.some(isOfTheMoment)) {
    const explanation = await explanationOf(policy, request)
    if (!explanation.denials.some(isOfTheMoment)) return shown(invocation, explanation)
  }
  const { code = '', reason = '', hint = '' } = record
  const lines = [
    printable(`${code}: ${reason}`),
    ...sentences(invocation, denials),
    ...(request === undefined ? [] : [OF_THE_MOMENT]),
    printable(hint),
  ]
  invocation.out.result({ admitted: false, denials, changes: [], policy: null }, lines.join('\n'))
  return 1
}

async function explanationOf(policy: string, request: ContainerRequest): Promise<Explanation> {
  return explainRequest(policy, request, await loadConditions(parseWorkloadPolicy(policy)))
}

function shown(invocation: Invocation, { denials, changes, patched }: Explanation): number {
  const target = invocation.string('write')
  if (target !== undefined && patched !== undefined) writeUserFile(target, patched)
  const remedy =
    patched === undefined
      ? [
          'No wider rule would be the same decision: it is another image, order or number of containers, a condition, or no limit at all.',
        ]
      : ['To admit it:', ...changes.map((change) => printable(`  ${change}`))]
  const text =
    denials.length === 0 ? 'the policy admits this request' : [...sentences(invocation, denials), ...remedy].join('\n')
  invocation.out.result({ admitted: denials.length === 0, denials, changes, policy: patched ?? null }, text)
  return denials.length === 0 ? 0 : 1
}

function sentences({ out }: Invocation, denials: Explanation['denials']): readonly string[] {
  return denials.flatMap(({ field, allowed, asked }) => [
    printable(field),
    `  allowed  ${out.paint('green', printable(allowed))}`,
    `  asked    ${out.paint('red', printable(asked))}`,
  ])
}

function usage(problem: string): UsageError {
  return new UsageError('ERR_USAGE', problem, {
    hint: 'See `caisson policy explain --help`, and docs/policy.md for files of cases.',
  })
}
