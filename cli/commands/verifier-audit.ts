import { existsSync } from 'node:fs'
import { encodeAuditCheckpoint, parseAuditCheckpoint, verifyAuditLog } from '#attestation/audit/verify-log'
import { UnverifiedError, UsageError } from '#protocol/errors'
import type { CommandSpec, Invocation } from '../command.ts'
import { ADMIN_OPTIONS, withAdmin } from '../connections.ts'
import { readUserFile, writeUserFile } from '../files.ts'
import { printable } from '../printable.ts'

const DEFAULT_LIST = 50
/** What the verifier answers at most. */
const MAX_LIST = 500

export const verifierAudit: CommandSpec = {
  path: 'verifier audit',
  summary:
    'Lists who did what, or verifies the whole log: every entry is hashed again, and compared with the checkpoint of the\nlast time. Keep the checkpoint where the verifier’s operator cannot write: it shows any change, reordering or cut.',
  operands: 'list | verify',
  minOperands: 1,
  maxOperands: 1,
  options: {
    ...ADMIN_OPTIONS,
    limit: {
      type: 'string',
      placeholder: 'N',
      help: `list: entries, newest first; at most ${MAX_LIST}`,
      default: String(DEFAULT_LIST),
    },
    checkpoint: {
      type: 'string',
      placeholder: 'FILE',
      help: 'verify: compare with this checkpoint, and replace it when all is well; made when absent',
    },
  },
  examples: [
    'caisson verifier audit list --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier audit verify --checkpoint audit.json --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) => {
    const [action] = invocation.operands
    if (action === 'list') return list(invocation)
    if (action === 'verify') return verify(invocation)
    throw new UsageError('ERR_USAGE', 'expected `list` or `verify`', { hint: 'See `caisson verifier audit --help`.' })
  },
}

function list(invocation: Invocation): Promise<number> {
  return withAdmin(invocation, async (client) => {
    const entries = await client.listAudit(invocation.integer('limit', 1, MAX_LIST))
    const lines = entries.map(({ at, actor, action, subject, verdict }) =>
      printable(`${at.toISOString()}  ${verdict}  ${action}  ${subject}  ${actor}`),
    )
    invocation.out.result(entries, lines.join('\n'))
    return 0
  })
}

/** Exit code 1 when the log is not what it was. */
function verify(invocation: Invocation): Promise<number> {
  return withAdmin(invocation, async (client) => {
    const path = invocation.string('checkpoint')
    const known =
      path !== undefined && existsSync(path)
        ? parseAuditCheckpoint(readUserFile(path, 'checkpoint').toString('utf8'))
        : undefined
    try {
      const head = await verifyAuditLog(client.auditSource(), known)
      if (path !== undefined) writeUserFile(path, encodeAuditCheckpoint(head), 0o600)
      const since = known === undefined ? 'no checkpoint to compare with' : `${known.size} of them as checked before`
      invocation.out.result(
        { verdict: 'unchanged', ...head, checkedBefore: known?.size ?? 0 },
        `${head.size} entries, ${since}; root ${head.root}`,
      )
      return 0
    } catch (error) {
      if (!(error instanceof UnverifiedError)) throw error
      invocation.out.result(
        { verdict: 'changed', code: error.code, reason: error.message, remedy: error.hint ?? null },
        `${error.message}\n${error.hint ?? ''}`,
      )
      return 1
    }
  })
}
