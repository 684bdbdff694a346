import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile } from '../files.ts'

export const verifierReferenceValue: CommandSpec = {
  path: 'verifier reference-value',
  summary: 'Registers what genuine guests measure, as `caisson measure` predicts it; lists and removes it.',
  operands: 'register FILE | list | remove ID',
  minOperands: 1,
  maxOperands: 2,
  options: ADMIN_OPTIONS,
  examples: [
    'caisson verifier reference-value register reference.json --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier reference-value list --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, operand] = invocation.operands
      if (action === 'register' && operand !== undefined) {
        const id = await client.putReference(readUserFile(operand, 'reference values').toString('utf8'))
        invocation.out.result({ id }, id)
        return 0
      }
      if (action === 'list' && operand === undefined) {
        const list = await client.listReferences()
        invocation.out.result(list, list.map(({ id, createdAt }) => `${id}  ${createdAt.toISOString()}`).join('\n'))
        return 0
      }
      if (action === 'remove' && operand !== undefined) {
        await client.removeReference(operand)
        invocation.out.result({ removed: operand }, `removed ${operand}`)
        return 0
      }
      throw new UsageError('ERR_USAGE', 'expected `register FILE`, `list` or `remove ID`', {
        hint: 'See `caisson verifier reference-value --help`.',
      })
    }),
}
