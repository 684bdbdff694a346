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
import type { Database, Sql } from './database.ts'
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
  readonly #tenant: string

  constructor(database: Database, tenant: string) {
    this.#database = database
    this.#tenant = tenant
  }

  /** Appends, in the transaction of what the entry is about: another process may be appending, too. */
  async add(sql: Sql, entry: AuditEntry): Promise<void> {
    await appendLeaf(sql, this.#tenant, leafText(entry))
  }

  /** Newest first. */
  async list(limit: number): Promise<readonly AuditEntry[]> {
    const query = 'SELECT leaf FROM tenant_audit_leaves WHERE tenant = ? ORDER BY position DESC LIMIT ?'
    return (await this.#database.all(query, this.#tenant, limit)).map((row) => entryOf(text(row, 'leaf')))
  }

  /** Leaves as they were hashed, oldest first. */
  async leaves(from: number, limit: number): Promise<readonly string[]> {
    const query = 'SELECT leaf FROM tenant_audit_leaves WHERE tenant = ? AND position >= ? ORDER BY position LIMIT ?'
    return (await this.#database.all(query, this.#tenant, from, limit)).map((row) => text(row, 'leaf'))
  }

  async tree(): Promise<AuditTree> {
    return await this.#frozen(async (size, subtree) => ({ size, root: toHex(await treeRoot(subtree, size)) }))
  }

  /** Hex, as `merkle-tree.ts` orders them. @throws MalformedError ERR_AUDIT_RANGE */
  async proveInclusion(index: number, size: number): Promise<readonly string[]> {
    return await this.#frozen(async (now, subtree) =>
      (await inclusionProof(subtree, index, Math.min(size, now))).map(toHex),
    )
  }

  /** @throws MalformedError ERR_AUDIT_RANGE */
  async proveConsistency(older: number, newer: number): Promise<readonly string[]> {
    return await this.#frozen(async (now, subtree) =>
      (await consistencyProof(subtree, older, Math.min(newer, now))).map(toHex),
    )
  }

  /** One transaction, so that no entry arrives between counting and hashing. */
  async #frozen<T>(work: (size: number, subtree: SubtreeHash) => Promise<T>): Promise<T> {
    return await this.#database.transaction(async (sql) => {
      const size = await leafCount(sql, this.#tenant)
      return await work(size, (level, index) => nodeAt(sql, this.#tenant, level, index))
    })
  }
}

/** Appends one leaf and the hashes of the subtrees that it completes. */
export async function appendLeaf(sql: Sql, tenant: string, leaf: string): Promise<void> {
  const position = await leafCount(sql, tenant)
  await sql.run('INSERT INTO tenant_audit_leaves (tenant, position, leaf) VALUES (?, ?, ?)', tenant, position, leaf)
  let hash: TreeHash = leafHash(Buffer.from(leaf))
  for (let level = 0, index = position; ; level++, index = Math.floor(index / 2)) {
    const insert = 'INSERT INTO tenant_audit_nodes (tenant, level, position, hash) VALUES (?, ?, ?, ?)'
    await sql.run(insert, tenant, level, index, hash)
    if (index % 2 === 0) return
    hash = nodeHash(await nodeAt(sql, tenant, level, index - 1), hash)
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

async function leafCount(sql: Sql, tenant: string): Promise<number> {
  const query = 'SELECT coalesce(max(position) + 1, 0) AS n FROM tenant_audit_leaves WHERE tenant = ?'
  return integer(await sql.get(query, tenant), 'n')
}

async function nodeAt(sql: Sql, tenant: string, level: number, index: number): Promise<TreeHash> {
  const query = 'SELECT hash FROM tenant_audit_nodes WHERE tenant = ? AND level = ? AND position = ?'
  return blob(await sql.get(query, tenant, level, index), 'hash')
}
