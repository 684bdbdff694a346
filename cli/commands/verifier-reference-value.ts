import { UsageError } from '#protocol/errors'
import type { CommandSpec } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile } from '../files.ts'

export const verifierReferenceValue: CommandSpec = {
  path: 'verifier reference-value',
  summary: 'Registers what genuine guests measure, as `caisson measure` predicts it; lists and removes it.',
  operands: 'register FILE | list | promote ID | retire ID | remove ID',
  minOperands: 1,
  maxOperands: 2,
  options: {
    ...ADMIN_OPTIONS,
    candidate: { type: 'boolean', help: 'register: matches nothing until it is promoted' },
    until: { type: 'string', placeholder: 'TIME', help: 'retire: counts until then (RFC 3339); default: not any more' },
  },
  examples: [
    'caisson verifier reference-value register reference.json --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier reference-value list --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [action, operand] = invocation.operands
      const state = invocation.flag('candidate') ? 'candidate' : 'active'
      if (action === 'register' && operand !== undefined) {
        const id = await client.putReference(readUserFile(operand, 'reference values').toString('utf8'), state)
        invocation.out.result({ id, state }, `${id}  ${state}`)
        return 0
      }
      if (action === 'list' && operand === undefined) {
        const list = await client.listReferences()
        invocation.out.result(
          list,
          list
            .map(
              (item) =>
                `${item.id}  ${item.createdAt.toISOString()}  ${item.state}${item.until === null ? '' : ` until ${item.until}`}`,
            )
            .join('\n'),
        )
        return 0
      }
      if (action === 'promote' && operand !== undefined) {
        await client.promoteReference(operand)
        invocation.out.result({ promoted: operand }, `${operand} counts`)
        return 0
      }
      if (action === 'retire' && operand !== undefined) {
        const until = invocation.string('until')
        const time = until === undefined ? undefined : new Date(until)
        if (time !== undefined && !Number.isFinite(time.getTime())) {
          throw new UsageError(
            'ERR_USAGE',
            `--until ${JSON.stringify(until)} is not a time such as 2026-01-31T12:00:00Z`,
          )
        }
        await client.retireReference(operand, time)
        invocation.out.result(
          { retired: operand, until: until ?? null },
          `${operand} counts ${until === undefined ? 'no more' : `until ${until}`}`,
        )
        return 0
      }
      if (action === 'remove' && operand !== undefined) {
        await client.removeReference(operand)
        invocation.out.result({ removed: operand }, `removed ${operand}`)
        return 0
      }
      throw new UsageError('ERR_USAGE', 'expected `register FILE`, `list`, `promote ID`, `retire ID` or `remove ID`', {
        hint: 'See `caisson verifier reference-value --help`.',
      })
    }),
}
