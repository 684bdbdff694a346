/**
 * Single use of challenges, across all verifier processes of one store: the first to insert an id has used it.
 */
import { UnverifiedError } from '#protocol/errors'
import type { Database } from './database.ts'

export class SpentChallenges {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  /** A cheap early look; only `spend` decides. */
  isSpent(id: string): boolean {
    return this.#database.get('SELECT 1 AS spent FROM spent_challenges WHERE id = ?', id) !== undefined
  }

  /**
   * Uses the challenge up. Call it in the transaction that records the outcome, so that both happen or neither.
   *
   * @param expiresMs when the session expires by itself: until then the id must be remembered
   * @throws UnverifiedError ERR_CHALLENGE_SPENT
   */
  spend(id: string, expiresMs: number, now: Date): void {
    this.#database.run('DELETE FROM spent_challenges WHERE expires_ms < ?', now.getTime())
    const inserted = this.#database.run(
      'INSERT INTO spent_challenges (id, expires_ms) VALUES (?, ?) ON CONFLICT DO NOTHING',
      id,
      expiresMs,
    )
    if (inserted === 0) throw spentError()
  }
}

export function spentError(): UnverifiedError {
  return new UnverifiedError('ERR_CHALLENGE_SPENT', 'this challenge has been answered before', {
    hint: 'A replayed answer, or a client that sent the same answer twice: each answer needs a new challenge.',
  })
}
