/**
 * A tenant's appraisal policies by name. Evidence must satisfy one of them as a whole; without any, the strict policy of an
 * empty document counts. Documents are kept as they were written, and read anew for each attestation: what was revoked a
 * moment ago, by whatever replica, counts no more.
 */
import { MalformedError, UsageError } from '#protocol/errors'
import type { Database, Sql } from './database.ts'
import { integer, type Row, text } from './row.ts'

export interface StoredPolicy {
  readonly id: string
  /** YAML, see docs/appraisal.md. */
  readonly document: string
  readonly createdAt: Date
}

const MAX_POLICIES = 64
const ID = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$/

/** @throws MalformedError ERR_POLICY_ID */
export function parsePolicyId(id: string): string {
  if (ID.test(id)) return id
  throw new MalformedError('ERR_POLICY_ID', `${JSON.stringify(id.slice(0, 160))} is not the name of a policy`, {
    hint: 'Use up to 128 letters, digits, "_", "-" and "." (not at the start).',
  })
}

export class PolicyStore {
  readonly #database: Database
  readonly #tenant: string

  constructor(database: Database, tenant: string) {
    this.#database = database
    this.#tenant = tenant
  }

  /**
   * Creates or replaces. The document was read before.
   *
   * @throws UsageError ERR_POLICY_LIMIT
   */
  async put(sql: Sql, policy: Pick<StoredPolicy, 'id' | 'document'>, at: Date): Promise<void> {
    const count = 'SELECT count(*) AS n FROM appraisal_policies WHERE tenant = ? AND id <> ?'
    const others = integer(await sql.get(count, this.#tenant, policy.id), 'n')
    if (others >= MAX_POLICIES) {
      throw new UsageError('ERR_POLICY_LIMIT', `there are ${others} appraisal policies already`, {
        hint: 'Remove those that no guest needs any more.',
      })
    }
    await sql.run(
      `INSERT INTO appraisal_policies (tenant, id, document, created_ms) VALUES (?, ?, ?, ?)
       ON CONFLICT (tenant, id) DO UPDATE SET document = excluded.document, created_ms = excluded.created_ms`,
      this.#tenant,
      policy.id,
      policy.document,
      at.getTime(),
    )
  }

  /** False when there is no such policy. */
  async remove(sql: Sql, id: string): Promise<boolean> {
    return (await sql.run('DELETE FROM appraisal_policies WHERE tenant = ? AND id = ?', this.#tenant, id)) > 0
  }

  /** By name. */
  async list(): Promise<readonly StoredPolicy[]> {
    const query = 'SELECT * FROM appraisal_policies WHERE tenant = ? ORDER BY id'
    return (await this.#database.all(query, this.#tenant)).map(toPolicy)
  }
}

function toPolicy(row: Row): StoredPolicy {
  return { id: text(row, 'id'), document: text(row, 'document'), createdAt: new Date(integer(row, 'created_ms')) }
}
