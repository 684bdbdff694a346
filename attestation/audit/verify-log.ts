/**
 * Checks a whole audit log from outside: every entry is hashed again, the root compared with what the verifier says, and
 * both with the checkpoint of an earlier check. Whoever keeps the checkpoint elsewhere notices any change, reordering or
 * cut of what it covers, whatever the verifier's operator did to the store.
 */
import { fromHex, toHex } from '#protocol/encoding'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { leafHash, RootBuilder, verifyConsistency } from './merkle-tree.ts'

/** What an auditor remembers between two checks. */
export interface AuditCheckpoint {
  /** Number of entries. */
  readonly size: number
  /** Root of their tree, hex. */
  readonly root: string
}

/** Where the log is read from. */
export interface AuditSource {
  tree(): Promise<AuditCheckpoint>
  /** Entries as they were hashed, oldest first, at most `limit`. */
  leaves(from: number, limit: number): Promise<readonly string[]>
  /** Hex. */
  proveConsistency(older: number, newer: number): Promise<readonly string[]>
}

const PAGE = 500
const ROOT = /^[0-9a-f]{64}$/
const MAX_CHECKPOINT_CHARS = 4096

/** Throws `MalformedError` ERR_AUDIT_CHECKPOINT. */
export function parseAuditCheckpoint(text: string): AuditCheckpoint {
  const fields = JsonFields.parse(text, 'audit checkpoint', {
    code: 'ERR_AUDIT_CHECKPOINT',
    maxChars: MAX_CHECKPOINT_CHARS,
  })
  fields.only(['size', 'root'])
  const root = fields.string('root', 64)
  if (!ROOT.test(root)) throw fields.error('root', 'a SHA-256 digest in lower-case hex is needed')
  return { size: fields.integer('size', 0, Number.MAX_SAFE_INTEGER), root }
}

/**
 * Returns the checkpoint to keep for the next time.
 *
 * @param onEntry is given every entry, oldest first, once it is hashed
 * @throws UnverifiedError ERR_AUDIT_CHANGED (the entries are not those that the root, or the checkpoint, stands for),
 *   ERR_AUDIT_CUT (fewer entries than there were)
 */
export async function verifyAuditLog(
  source: AuditSource,
  checkpoint: AuditCheckpoint | undefined,
  onEntry: (entry: string, index: number) => void = () => {},
): Promise<AuditCheckpoint> {
  const head = await source.tree()
  if (checkpoint !== undefined && head.size < checkpoint.size) {
    throw new UnverifiedError('ERR_AUDIT_CUT', `the log has ${head.size} entries, and had ${checkpoint.size}`, {
      hint: 'Entries were removed, or an old backup was restored. Ask who had access to the store.',
    })
  }
  const builder = new RootBuilder()
  for (let index = 0; index < head.size; ) {
    const page = await source.leaves(index, Math.min(PAGE, head.size - index))
    if (page.length === 0) throw changed(`entry ${index} of ${head.size} is missing`)
    for (const leaf of page) {
      if (index === checkpoint?.size) checkAt(checkpoint, builder)
      builder.add(leafHash(new TextEncoder().encode(leaf)))
      onEntry(leaf, index++)
    }
  }
  if (checkpoint?.size === head.size) checkAt(checkpoint, builder)
  if (toHex(builder.root()) !== head.root) {
    throw changed(`the ${head.size} entries hash to ${toHex(builder.root())}, the log's root is ${head.root}`)
  }
  if (checkpoint !== undefined) await checkProof(source, checkpoint, head)
  return head
}

/** The entries alone decide; this shows that the verifier's own hashes tell the same story. */
async function checkProof(source: AuditSource, older: AuditCheckpoint, newer: AuditCheckpoint): Promise<void> {
  const proof = await source.proveConsistency(older.size, newer.size)
  const tree = ({ size, root }: AuditCheckpoint) => ({ size, root: fromHex(root, 'audit root') })
  if (
    !verifyConsistency({
      older: tree(older),
      newer: tree(newer),
      proof: proof.map((hash) => fromHex(hash, 'audit proof')),
    })
  ) {
    throw changed(`the proof that ${older.size} entries grew to ${newer.size} does not hold`)
  }
}

function checkAt(checkpoint: AuditCheckpoint, builder: RootBuilder): void {
  if (toHex(builder.root()) === checkpoint.root) return
  throw changed(`one of the first ${checkpoint.size} entries is not what it was when they were checked last`)
}

function changed(what: string): UnverifiedError {
  return new UnverifiedError('ERR_AUDIT_CHANGED', `the audit log was changed: ${what}`, {
    hint: 'Compare with a backup of the store to find the entry, and ask who had access to it.',
  })
}

/** The text of a checkpoint file. Throws `MalformedError` ERR_AUDIT_CHECKPOINT for what could not be read back. */
export function encodeAuditCheckpoint(checkpoint: AuditCheckpoint): string {
  if (!ROOT.test(checkpoint.root)) throw new MalformedError('ERR_AUDIT_CHECKPOINT', 'the root is not a SHA-256 digest')
  return `${JSON.stringify({ size: checkpoint.size, root: checkpoint.root })}\n`
}
