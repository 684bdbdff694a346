/** Registered reference values: documents of expected measurements, each matched as a whole or not at all. */
import { MalformedError, UsageError } from '#protocol/errors'
import type { Database } from './database.ts'
import { integer, type Row, text } from './row.ts'

export interface StoredReference {
  readonly id: string
  /** JSON text as it was registered; parsed by the kind of evidence it is for. */
  readonly document: string
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

  constructor(database: Database) {
    this.#database = database
  }

  /**
   * Creates or replaces. Call inside a transaction.
   *
   * @throws UsageError ERR_REFERENCE_LIMIT
   */
  put(id: string, document: string, at: Date): void {
    const others = integer(this.#database.get('SELECT count(*) AS n FROM reference_values WHERE id <> ?', id), 'n')
    if (others >= MAX_DOCUMENTS) {
      throw new UsageError('ERR_REFERENCE_LIMIT', `there are ${others} documents of reference values already`, {
        hint: 'Remove those of guests that no longer run.',
      })
    }
    this.#database.run(
      `INSERT INTO reference_values (id, document, created_ms) VALUES (?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET document = excluded.document, created_ms = excluded.created_ms`,
      id,
      document,
      at.getTime(),
    )
  }

  find(id: string): StoredReference | undefined {
    const row = this.#database.get('SELECT * FROM reference_values WHERE id = ?', id)
    return row === undefined ? undefined : toReference(row)
  }

  remove(id: string): boolean {
    return this.#database.run('DELETE FROM reference_values WHERE id = ?', id) > 0
  }

  /** Newest first. */
  list(): readonly StoredReference[] {
    return this.#database.all('SELECT * FROM reference_values ORDER BY created_ms DESC, id').map(toReference)
  }
}

function toReference(row: Row): StoredReference {
  return {
    id: text(row, 'id'),
    document: text(row, 'document'),
    createdAt: new Date(integer(row, 'created_ms')),
  }
}
