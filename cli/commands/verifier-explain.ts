import type { AttestationRecord } from '#attestation/store/attestation-log'
import type { CommandSpec } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { printable } from '../printable.ts'

export const verifierExplain: CommandSpec = {
  path: 'verifier explain',
  summary:
    'Says why an attestation was refused, claim by claim, or what a guest refused and why. Guest and host have only the\ncorrelation id.',
  operands: '[ID]',
  minOperands: 0,
  maxOperands: 1,
  options: ADMIN_OPTIONS,
  examples: [
    'caisson verifier explain 4f2c… --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier explain --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) =>
    withAdmin(invocation, async (client) => {
      const [id] = invocation.operands
      const records = id === undefined ? await client.listAttestations() : await client.explain(id)
      invocation.out.result(records, records.map(id === undefined ? oneLine : inFull).join('\n'))
      return 0
    }),
}

function oneLine(record: AttestationRecord): string {
  return `${printable(record.id)}  ${record.at.toISOString()}  ${record.stage.padEnd(7)} ${record.verdict}  ${record.code ?? ''}`
}

function inFull(record: AttestationRecord): string {
  const lines = [oneLine(record)]
  if (record.reason !== undefined) lines.push(`  reason: ${record.reason}`)
  if (record.hint !== undefined) lines.push(`  remedy: ${record.hint}`)
  for (const check of record.checks) {
    lines.push(`  ${check.ok ? 'ok ' : 'NO '} ${check.claim}`)
    if (check.ok) continue
    lines.push(`      expected ${check.expected}`, `      found    ${check.found}`)
    if (check.remedy !== undefined) lines.push(`      remedy   ${check.remedy}`)
  }
  for (const [name, value] of Object.entries(record.facts)) {
    if (name !== 'request-case' && name !== 'correlation-id') lines.push(`  ${name}: ${value}`)
  }
  if (record.facts['request-case'] !== undefined) {
    lines.push(`  the change that would admit it: caisson policy explain POLICY --id ${record.id}`)
  }
  return lines.map(printable).join('\n')
}
