/** What names a tenant's guests may have in certificates, and which guests: grants, each with a release condition. */
import { isDnsName } from '#protocol/dns-name'
import { MalformedError, UsageError } from '#protocol/errors'
import type { Database, Sql } from './database.ts'
import { parsePolicyId } from './policy-store.ts'
import type { ReleaseCondition } from './release-condition.ts'
import { integer, type Row, text } from './row.ts'

export interface IdentityGrant {
  readonly id: string
  /** DNS names in lower case; a guest that meets the condition may have any of them. */
  readonly names: readonly string[]
  readonly release: ReleaseCondition
}

export interface StoredGrant extends IdentityGrant {
  readonly createdAt: Date
}

const MAX_GRANTS = 1_000
const MAX_NAMES = 64

/** @throws MalformedError ERR_POLICY_ID, ERR_IDENTITY_GRANT */
export function parseIdentityGrant(id: string, names: readonly string[], release: ReleaseCondition): IdentityGrant {
  const wrong = names.find((name) => !isDnsName(name))
  if (wrong !== undefined) throw malformed(`${JSON.stringify(wrong.slice(0, 260))} is no DNS name in lower case`)
  if (names.length === 0 || names.length > MAX_NAMES) {
    throw malformed(`a grant of ${names.length} names; 1 to ${MAX_NAMES} are possible`)
  }
  return { id: parsePolicyId(id), names: [...new Set(names)], release }
}

export class IdentityStore {
  readonly #database: Database
  readonly #tenant: string

  constructor(database: Database, tenant: string) {
    this.#database = database
    this.#tenant = tenant
  }

  /** Creates or replaces. @throws UsageError ERR_IDENTITY_LIMIT */
  async put(sql: Sql, { id, names, release }: IdentityGrant, at: Date): Promise<void> {
    const count = 'SELECT count(*) AS n FROM identity_grants WHERE tenant = ? AND id <> ?'
    const others = integer(await sql.get(count, this.#tenant, id), 'n')
    if (others >= MAX_GRANTS) {
      throw new UsageError('ERR_IDENTITY_LIMIT', `there are ${others} grants of names already`, {
        hint: 'Remove those that no guest needs any more, or name several names in one.',
      })
    }
    await sql.run(
      `INSERT INTO identity_grants (tenant, id, names, release, created_ms) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (tenant, id)
       DO UPDATE SET names = excluded.names, release = excluded.release, created_ms = excluded.created_ms`,
      this.#tenant,
      id,
      JSON.stringify(names),
      JSON.stringify(release),
      at.getTime(),
    )
  }

  /** False when there is no such grant. */
  async remove(sql: Sql, id: string): Promise<boolean> {
    return (await sql.run('DELETE FROM identity_grants WHERE tenant = ? AND id = ?', this.#tenant, id)) > 0
  }

  /** By id. Read anew for each certificate: what was removed a moment ago counts no more. */
  async list(): Promise<readonly StoredGrant[]> {
    const query = 'SELECT * FROM identity_grants WHERE tenant = ? ORDER BY id'
    return (await this.#database.all(query, this.#tenant)).map(toGrant)
  }
}

function toGrant(row: Row): StoredGrant {
  const [names, release]: [readonly string[], ReleaseCondition] = [
    JSON.parse(text(row, 'names')),
    JSON.parse(text(row, 'release')),
  ]
  return { id: text(row, 'id'), names, release, createdAt: new Date(integer(row, 'created_ms')) }
}

function malformed(message: string): MalformedError {
  return new MalformedError('ERR_IDENTITY_GRANT', message, {
    hint: 'Name what clients call the service by, such as web.shop.example; wildcards are not granted.',
  })
}
