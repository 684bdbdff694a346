/** Checks one entry of an audit log from outside, without reading the others (RFC 9162, section 2.1.3). */
import { fromHex } from '#protocol/encoding'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import { leafHash, verifyInclusion } from './merkle-tree.ts'
import type { AuditCheckpoint, AuditSource } from './verify-log.ts'

export interface AuditEntrySource extends Pick<AuditSource, 'tree' | 'leaves'> {
  /** Hex, lowest first: what leads from entry `index` to the root of the first `size` entries. */
  proveInclusion(index: number, size: number): Promise<readonly string[]>
}

export interface ProvedEntry {
  /** As it was hashed: canonical JSON. */
  readonly entry: string
  /** What it was proved to be in. */
  readonly tree: AuditCheckpoint
}

/**
 * @param index the oldest entry is 0
 * @param checkpoint kept from an earlier check; without it, the entry is compared with what the verifier says now
 * @throws MalformedError ERR_AUDIT_RANGE
 * @throws UnverifiedError ERR_AUDIT_CHANGED
 */
export async function verifyAuditEntry(
  source: AuditEntrySource,
  index: number,
  checkpoint?: AuditCheckpoint,
): Promise<ProvedEntry> {
  const tree = checkpoint ?? (await source.tree())
  if (index >= tree.size) {
    throw new MalformedError('ERR_AUDIT_RANGE', `there is no entry ${index} among the ${tree.size} that are covered`, {
      hint: 'The oldest entry is 0; `caisson verifier audit verify --checkpoint` covers the newer ones.',
    })
  }
  const [entry] = await source.leaves(index, 1)
  const proof = (await source.proveInclusion(index, tree.size)).map((hash) => fromHex(hash, 'audit proof'))
  const leaf = entry === undefined ? undefined : leafHash(new TextEncoder().encode(entry))
  const root = fromHex(tree.root, 'audit root')
  if (entry !== undefined && leaf !== undefined && verifyInclusion({ leaf, index, size: tree.size, root, proof })) {
    return { entry, tree }
  }
  throw new UnverifiedError('ERR_AUDIT_CHANGED', `entry ${index} of the audit log is not the one that was hashed`, {
    hint: 'Compare with a backup of the store, and ask who had access to it.',
  })
}
