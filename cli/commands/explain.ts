import { type ExplainedReason, openSealedReason } from '#protocol/sealed-reason'
import { parseTenantIdentity } from '#protocol/tenant-key'
import type { CommandSpec } from '../command.ts'
import { explainCode } from '../error-table.ts'
import { readUserFile } from '../files.ts'
import { printable } from '../printable.ts'

export const explain: CommandSpec = {
  path: 'explain',
  summary:
    'Says why a guest refused something: opens a reason that was sealed to the tenant’s key. It proves nothing: whoever\nhas initdata can seal a text to the key that stands in it.',
  operands: 'FILE',
  minOperands: 1,
  maxOperands: 1,
  options: {
    identity: { type: 'string', placeholder: 'KEY', help: 'private key made by `initdata keygen` (PREFIX.jwk)' },
  },
  examples: ['caisson explain --identity tenant.jwk ~/.local/state/caisson/reasons/4f2c81d09b6a7e35.jwe'],
  run: async (invocation) => {
    const identity = parseTenantIdentity(readUserFile(invocation.required('identity'), 'tenant key').toString('utf8'))
    const reason = await openSealedReason(identity, readUserFile(invocation.operand(0), 'sealed reason'))
    const remedy = reason.hint ?? explainCode(reason.code)?.remedy
    invocation.out.result({ ...reason, remedy }, inFull(reason, remedy))
    return 0
  },
}

function inFull({ code, subject, message, at, correlationId, denial }: ExplainedReason, remedy?: string): string {
  const lines = [`${code}: ${message}`, `  request: ${subject}`]
  if (denial !== undefined) {
    lines.push(`  field:   ${denial.field}`, `  allowed: ${denial.allowed}`, `  asked:   ${denial.asked}`)
  }
  if (remedy !== undefined) lines.push(`  remedy:  ${remedy}`)
  lines.push(`  at ${at}, id ${correlationId}`)
  return lines.map(printable).join('\n')
}
