/**
 * Single use of challenges, across all verifier processes of one store: the first to insert an id has used it.
 */
import { UnverifiedError } from '#protocol/errors'
import type { Database, Sql } from './database.ts'

export class SpentChallenges {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** A cheap early look; only `spend` decides. */
  async isSpent(id: string): Promise<boolean> {
    return (await this.#database.get('SELECT 1 AS found FROM spent WHERE id = ?', id)) !== undefined
  }

  /**
   * Uses the challenge up, in the transaction that records the outcome, so that both happen or neither.
   *
   * @param expiresMs when the session expires by itself: until then the id must be remembered
   * @throws UnverifiedError ERR_CHALLENGE_SPENT
   */
  async spend(sql: Sql, id: string, expiresMs: number, now: Date): Promise<void> {
    await sql.run('DELETE FROM spent WHERE expires_ms < ?', now.getTime())
    const insert = 'INSERT INTO spent (id, expires_ms) VALUES (?, ?) ON CONFLICT DO NOTHING'
    if ((await sql.run(insert, id, expiresMs)) === 0) throw spentError()
  }
}

export function spentError(): UnverifiedError {
  return new UnverifiedError('ERR_CHALLENGE_SPENT', 'this challenge has been answered before', {
    hint: 'A replayed answer, or a client that sent the same answer twice: each answer needs a new challenge.',
  })
}
