import { existsSync } from 'node:fs'
import { verifyAuditEntry } from '#attestation/audit/verify-entry'
import {
  type AuditCheckpoint,
  encodeAuditCheckpoint,
  parseAuditCheckpoint,
  verifyAuditLog,
} from '#attestation/audit/verify-log'
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
    'Lists who did what, or verifies the whole log: every entry is hashed again, and compared with the checkpoint of the\nlast time; or proves one entry without reading the others. Keep the checkpoint where the verifier’s operator cannot write:\nit shows any change, reordering or cut.',
  operands: 'list | verify | prove N',
  minOperands: 1,
  maxOperands: 2,
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
      help: 'verify: compare with this checkpoint, and replace it when all is well; made when absent. prove: entry N, the oldest is 0, is in what this checkpoint covers',
    },
  },
  examples: [
    'caisson verifier audit list --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier audit prove 4 --checkpoint audit.json --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
    'caisson verifier audit verify --checkpoint audit.json --url https://verifier.example:8443 --ca ca.pem --admin-key admin.key',
  ],
  run: (invocation) => {
    const [action, index] = invocation.operands
    if (action === 'list' && index === undefined) return list(invocation)
    if (action === 'verify' && index === undefined) return verify(invocation)
    if (action === 'prove' && index !== undefined && /^\d{1,15}$/.test(index)) return prove(invocation, Number(index))
    throw new UsageError('ERR_USAGE', 'expected `list`, `verify` or `prove N`', {
      hint: 'See `caisson verifier audit --help`.',
    })
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
    const known = path !== undefined && existsSync(path) ? checkpointAt(path) : undefined
    return await unlessChanged(invocation, async () => {
      const head = await verifyAuditLog(client.auditSource(), known)
      if (path !== undefined) writeUserFile(path, encodeAuditCheckpoint(head), 0o600)
      const since = known === undefined ? 'no checkpoint to compare with' : `${known.size} of them as checked before`
      invocation.out.result(
        { verdict: 'unchanged', ...head, checkedBefore: known?.size ?? 0 },
        `${head.size} entries, ${since}; root ${head.root}`,
      )
    })
  })
}

/** Exit code 1 when the entry is not the one that was hashed. */
function prove(invocation: Invocation, index: number): Promise<number> {
  return withAdmin(invocation, async (client) => {
    const path = invocation.string('checkpoint')
    const known = path === undefined ? undefined : checkpointAt(path)
    return await unlessChanged(invocation, async () => {
      const { entry, tree } = await verifyAuditEntry(client.auditSource(), index, known)
      const since = known === undefined ? 'no checkpoint to compare with' : 'as checked before'
      invocation.out.result(
        { verdict: 'unchanged', index, entry, ...tree },
        `${printable(entry)}\nentry ${index} of ${tree.size}, ${since}; root ${tree.root}`,
      )
    })
  })
}

function checkpointAt(path: string): AuditCheckpoint {
  return parseAuditCheckpoint(readUserFile(path, 'checkpoint').toString('utf8'))
}

async function unlessChanged({ out }: Invocation, check: () => Promise<void>): Promise<number> {
  try {
    await check()
    return 0
  } catch (error) {
    if (!(error instanceof UnverifiedError)) throw error
    out.result(
      { verdict: 'changed', code: error.code, reason: error.message, remedy: error.hint ?? null },
      `${error.message}\n${error.hint ?? ''}`,
    )
    return 1
  }
}
