/** Who did what to which subject, with which outcome. Nothing secret; never changed by this code once written. */
import { type Database, integer, optionalText, text } from './database.ts'

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

export class AuditLog {
  readonly #database: Database

  constructor(database: Database) {
    this.#database = database
  }

  add(entry: AuditEntry): void {
    this.#database.run(
      'INSERT INTO audit (at_ms, actor, action, subject, verdict, correlation) VALUES (?, ?, ?, ?, ?, ?)',
      entry.at.getTime(),
      entry.actor,
      entry.action,
      entry.subject,
      entry.verdict,
      entry.correlation ?? null,
    )
  }

  /** Newest first. */
  list(limit: number): readonly AuditEntry[] {
    return this.#database.all('SELECT * FROM audit ORDER BY seq DESC LIMIT ?', limit).map((row) => ({
      at: new Date(integer(row, 'at_ms')),
      actor: text(row, 'actor'),
      action: text(row, 'action'),
      subject: text(row, 'subject'),
      verdict: text(row, 'verdict') === 'accepted' ? 'accepted' : 'refused',
      correlation: optionalText(row, 'correlation'),
    }))
  }
}
