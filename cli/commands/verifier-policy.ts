import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile } from '../files.ts'

export const verifierPolicy: CommandSpec = {
  path: 'verifier policy',
  summary:
    'Says what evidence a tenant accepts (docs/appraisal.md): evidence must satisfy one policy as a whole. Without any, the\nstrict policy of an empty document counts.',
  operands: 'put NAME FILE | list | show NAME | remove NAME | check FILE',
  minOperands: 1,
  maxOperands: 3,
  options: ADMIN_OPTIONS,
  examples: [
    'caisson verifier policy put production policy.yaml --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier policy check policy.yaml --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, operand, file] = invocation.operands
      const read = (path: string): string => readUserFile(path, 'appraisal policy').toString('utf8')
      if (action === 'put' && operand !== undefined && file !== undefined) {
        await client.putPolicy(operand, read(file))
        invocation.out.result({ id: operand }, `${operand} counts`)
        return 0
      }
      if (action === 'list' && operand === undefined) {
        const list = await client.listPolicies()
        const lines = list.map(({ id, createdAt }) => `${id}  ${createdAt.toISOString()}`)
        invocation.out.result(list, lines.length > 0 ? lines.join('\n') : 'no policy: the strict one counts')
        return 0
      }
      if (action === 'show' && operand !== undefined && file === undefined) {
        const policy = (await client.listPolicies()).find(({ id }) => id === operand)
        if (policy === undefined) throw new UsageError('ERR_POLICY_NOT_FOUND', `there is no policy ${operand}`)
        invocation.out.result(policy, policy.document.trimEnd())
        return 0
      }
      if (action === 'remove' && operand !== undefined && file === undefined) {
        await client.removePolicy(operand)
        invocation.out.result({ removed: operand }, `removed ${operand}`)
        return 0
      }
      if (action === 'check' && operand !== undefined && file === undefined) {
        await client.checkPolicy(read(operand))
        invocation.out.result({ valid: true }, `${operand} is a policy that the verifier takes`)
        return 0
      }
      throw new UsageError(
        'ERR_USAGE',
        'expected `put NAME FILE`, `list`, `show NAME`, `remove NAME` or `check FILE`',
        { hint: 'See `caisson verifier policy --help`.' },
      )
    }),
}
