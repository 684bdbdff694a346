/**
 * Who did what to which subject, with which outcome: an append-only log whose Merkle tree shows that nothing in it was
 * changed, moved or cut afterwards (RFC 9162 section 2.1). Nothing secret is in it.
 *
 * A leaf is the entry's canonical JSON. Hashes of complete subtrees are kept beside the entries, so that appending and
 * proving cost the logarithm of the log's length.
 */
import { canonicalJson } from '#protocol/canonical-json'
import { toHex } from '#protocol/encoding'
import {
  consistencyProof,
  inclusionProof,
  leafHash,
  nodeHash,
  type SubtreeHash,
  type TreeHash,
  treeRoot,
} from '../audit/merkle-tree.ts'
import type { Database } from './database.ts'
import { blob, integer, text } from './row.ts'

export interface AuditEntry {
  readonly at: Date
  /** "admin <key id>", "guest <EK fingerprint>". */
  readonly actor: string
  /** "resource.put", "attest", "resource.release", … */
  readonly action: string
  readonly subject: string
  readonly verdict: 'accepted' | 'refused'
  /** Id of the attestation record that says more. */
  readonly correlation?: string | undefined
}

export interface AuditTree {
  readonly size: number
  /** Hex. */
  readonly root: string
}

export class AuditLog {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** Appends. Call inside a transaction: another process on the same store may be appending, too. */
  add(entry: AuditEntry): void {
    appendLeaf(this.#database, leafText(entry))
  }

  /** Newest first. */
  list(limit: number): readonly AuditEntry[] {
    return this.#database
      .all('SELECT leaf FROM audit_leaves ORDER BY position DESC LIMIT ?', limit)
      .map((row) => entryOf(text(row, 'leaf')))
  }

  /** Leaves as they were hashed, oldest first. */
  leaves(from: number, limit: number): readonly string[] {
    return this.#database
      .all('SELECT leaf FROM audit_leaves WHERE position >= ? ORDER BY position LIMIT ?', from, limit)
      .map((row) => text(row, 'leaf'))
  }

  tree(): AuditTree {
    // One transaction, so that no entry arrives between counting and hashing.
    return this.#database.transaction(() => {
      const size = leafCount(this.#database)
      return { size, root: toHex(treeRoot(this.#subtree, size)) }
    })
  }

  /** Hex, as `merkle-tree.ts` orders them. @throws MalformedError ERR_AUDIT_RANGE */
  proveInclusion(index: number, size: number): readonly string[] {
    return inclusionProof(this.#subtree, index, Math.min(size, leafCount(this.#database))).map(toHex)
  }

  /** @throws MalformedError ERR_AUDIT_RANGE */
  proveConsistency(older: number, newer: number): readonly string[] {
    return consistencyProof(this.#subtree, older, Math.min(newer, leafCount(this.#database))).map(toHex)
  }

  readonly #subtree: SubtreeHash = (level, index) => nodeAt(this.#database, level, index)
}

/** Appends one leaf and the hashes of the subtrees that it completes. */
export function appendLeaf(database: Database, leaf: string): void {
  const position = leafCount(database)
  database.run('INSERT INTO audit_leaves (position, leaf) VALUES (?, ?)', position, leaf)
  let hash: TreeHash = leafHash(Buffer.from(leaf))
  for (let level = 0, index = position; ; level++, index = Math.floor(index / 2)) {
    database.run('INSERT INTO audit_nodes (level, position, hash) VALUES (?, ?, ?)', level, index, hash)
    if (index % 2 === 0) return
    hash = nodeHash(nodeAt(database, level, index - 1), hash)
  }
}

/** The text that is hashed. Correlation is left out where there is none, as canonical JSON has no undefined. */
export function leafText({ at, actor, action, subject, verdict, correlation }: AuditEntry): string {
  const entry = { at: at.toISOString(), actor, action, subject, verdict }
  return canonicalJson(correlation === undefined ? entry : { ...entry, correlation })
}

function entryOf(leaf: string): AuditEntry {
  const { at, ...entry }: Omit<AuditEntry, 'at'> & { at: string } = JSON.parse(leaf)
  return { ...entry, at: new Date(at) }
}

function leafCount(database: Database): number {
  return integer(database.get('SELECT coalesce(max(position) + 1, 0) AS n FROM audit_leaves'), 'n')
}

function nodeAt(database: Database, level: number, index: number): TreeHash {
  return blob(database.get('SELECT hash FROM audit_nodes WHERE level = ? AND position = ?', level, index), 'hash')
}
