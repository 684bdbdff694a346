/**
 * Registered reference values: documents of expected measurements, each matched as a whole or not at all.
 *
 * A new document may first be a `candidate`, which matches nothing; `promote` makes it count. A `retired` one counts
 * until its time is over, so that guests of two releases can run side by side while nodes are upgraded.
 */
import { MalformedError, UsageError } from '#protocol/errors'
import type { Database, Sql } from './database.ts'
import { integer, optionalInteger, type Row, text } from './row.ts'

export type ReferenceState = 'candidate' | 'active' | 'retired'

export interface StoredReference {
  readonly id: string
  /** JSON text as it was registered; parsed by the kind of evidence it is for. */
  readonly document: string
  readonly state: ReferenceState
  /** Of a retired one: until when it counts. */
  readonly until: Date | null
  readonly createdAt: Date
}

const MAX_DOCUMENTS = 1_000
const ID = /^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$/

/** @throws MalformedError ERR_REFERENCE_ID */
export function parseReferenceId(id: string): string {
  if (ID.test(id)) return id
  throw new MalformedError(
    'ERR_REFERENCE_ID',
    `${JSON.stringify(id.slice(0, 160))} is not the name of reference values`,
    {
      hint: 'Use up to 128 letters, digits, "_", "-" and "." (not at the start).',
    },
  )
}

export class ReferenceStore {
  readonly #database: Database
  readonly #tenant: string

  constructor(database: Database, tenant: string) {
    this.#database = database
    this.#tenant = tenant
  }

  /**
   * Creates or replaces.
   *
   * @throws UsageError ERR_REFERENCE_LIMIT
   */
  async put(sql: Sql, reference: Pick<StoredReference, 'id' | 'document' | 'state'>, at: Date): Promise<void> {
    const { id, document, state } = reference
    const count = 'SELECT count(*) AS n FROM reference_documents WHERE tenant = ? AND id <> ?'
    const others = integer(await sql.get(count, this.#tenant, id), 'n')
    if (others >= MAX_DOCUMENTS) {
      throw new UsageError('ERR_REFERENCE_LIMIT', `there are ${others} documents of reference values already`, {
        hint: 'Remove those of guests that no longer run.',
      })
    }
    await sql.run(
      `INSERT INTO reference_documents (tenant, id, document, state, created_ms) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (tenant, id) DO UPDATE SET document = excluded.document, state = excluded.state, until_ms = NULL,
         created_ms = excluded.created_ms`,
      this.#tenant,
      id,
      document,
      state,
      at.getTime(),
    )
  }

  /** False when there is no such document. */
  async promote(sql: Sql, id: string): Promise<boolean> {
    const update = "UPDATE reference_documents SET state = 'active', until_ms = NULL WHERE tenant = ? AND id = ?"
    return (await sql.run(update, this.#tenant, id)) > 0
  }

  /** @param until when it stops counting; the overlap with its successor */
  async retire(sql: Sql, id: string, until: Date): Promise<boolean> {
    const update = "UPDATE reference_documents SET state = 'retired', until_ms = ? WHERE tenant = ? AND id = ?"
    return (await sql.run(update, until.getTime(), this.#tenant, id)) > 0
  }

  async find(id: string): Promise<StoredReference | undefined> {
    const query = 'SELECT * FROM reference_documents WHERE tenant = ? AND id = ?'
    const row = await this.#database.get(query, this.#tenant, id)
    return row === undefined ? undefined : toReference(row)
  }

  async remove(sql: Sql, id: string): Promise<boolean> {
    return (await sql.run('DELETE FROM reference_documents WHERE tenant = ? AND id = ?', this.#tenant, id)) > 0
  }

  /** Newest first. */
  async list(): Promise<readonly StoredReference[]> {
    const query = 'SELECT * FROM reference_documents WHERE tenant = ? ORDER BY created_ms DESC, id'
    return (await this.#database.all(query, this.#tenant)).map(toReference)
  }

  /** Those that count at a time. */
  async current(at: Date): Promise<readonly StoredReference[]> {
    return (await this.list()).filter((reference) => countsAt(reference, at))
  }
}

/** Candidates do not; retired ones until their time is over. */
export function countsAt({ state, until }: StoredReference, at: Date): boolean {
  return state === 'active' || (state === 'retired' && until !== null && until > at)
}

function toReference(row: Row): StoredReference {
  const state = text(row, 'state')
  const until = optionalInteger(row, 'until_ms')
  return {
    id: text(row, 'id'),
    document: text(row, 'document'),
    state: state === 'active' || state === 'retired' ? state : 'candidate',
    until: until === undefined ? null : new Date(until),
    createdAt: new Date(integer(row, 'created_ms')),
  }
}
