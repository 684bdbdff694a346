/**
 * Every attestation and every refusal, for the tenant: what was claimed, what was expected, what was found.
 *
 * Guest and host are told a code and the record's id, nothing else. Anybody can cause refusals, so the log is a window:
 * the oldest records go when it is full. What strangers cause (refused requests for a challenge, calls without a session)
 * has a window of its own, so that they cannot push out the records of guests that were challenged.
 */
import { randomBytes } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import type { Database } from './database.ts'
import { integer, optionalText, type Row, text } from './row.ts'

/** One comparison that the verifier made. */
export interface ClaimCheck {
  /** What was looked at: "pcr 9 (kernel command line)". */
  readonly claim: string
  readonly expected: string
  readonly found: string
  readonly ok: boolean
  /** What the tenant can do when `ok` is false. */
  readonly remedy?: string
}

/** Where the guest was on its way: asking for a challenge, answering it, fetching a resource. */
export type AttestationStage = 'auth' | 'attest' | 'release'

export interface AttestationRecord {
  /** The correlation id that guest and host were given. */
  readonly id: string
  /** The same for all stages of one handshake. */
  readonly handshake: string | undefined
  readonly at: Date
  readonly stage: AttestationStage
  readonly tee: string
  readonly verdict: 'accepted' | 'refused'
  readonly code: string | undefined
  readonly reason: string | undefined
  readonly hint: string | undefined
  readonly checks: readonly ClaimCheck[]
  /** Facts by name: EK fingerprint, initdata digest, matched reference values, resource path. */
  readonly facts: Readonly<Record<string, string>>
}

export interface NewRecord extends Omit<AttestationRecord, 'id'> {
  readonly id?: string
  /** Token payload of an accepted attestation: lets its session cookie stand for the token. */
  readonly claims?: object
}

const MAX_TEXT_CHARACTERS = 4_000
/** Old records are removed each time this many came in. */
const TRIM_EVERY = 64

export class AttestationLog {
  readonly #database: Database
  readonly #keep: number
  #sinceTrim = 0

  /** @param options.keep records kept of strangers, and as many of guests */
  constructor(database: Database, options: { keep: number }) {
    this.#database = database
    this.#keep = options.keep
  }

  static newId(): string {
    return toHex(randomBytes(12))
  }

  /** Returns the record's id. */
  add(record: NewRecord): string {
    const id = record.id ?? AttestationLog.newId()
    this.#database.run(
      `INSERT INTO attestations (id, handshake, at_ms, stage, tee, verdict, code, reason, hint, details, claims)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      id,
      record.handshake ?? null,
      record.at.getTime(),
      record.stage,
      record.tee.slice(0, 32),
      record.verdict,
      record.code ?? null,
      record.reason?.slice(0, MAX_TEXT_CHARACTERS) ?? null,
      record.hint?.slice(0, MAX_TEXT_CHARACTERS) ?? null,
      JSON.stringify({ checks: record.checks, facts: record.facts }),
      record.claims === undefined ? null : JSON.stringify(record.claims),
    )
    if (++this.#sinceTrim >= TRIM_EVERY) this.#trim()
    return id
  }

  /** By correlation id. */
  find(id: string): AttestationRecord | undefined {
    const row = this.#database.get('SELECT * FROM attestations WHERE id = ?', id)
    return row === undefined ? undefined : toRecord(row)
  }

  /** All records of the handshake that `id` belongs to, oldest first. */
  handshakeOf(id: string): readonly AttestationRecord[] {
    return this.#database
      .all(
        `SELECT * FROM attestations WHERE id = ?1 OR handshake =
           (SELECT handshake FROM attestations WHERE id = ?1) ORDER BY seq LIMIT 100`,
        id,
      )
      .map(toRecord)
  }

  /** Token payload of an accepted attestation. */
  claimsOf(id: string): unknown {
    const row = this.#database.get('SELECT claims FROM attestations WHERE id = ?', id)
    const claims = row === undefined ? undefined : optionalText(row, 'claims')
    return claims === undefined ? undefined : JSON.parse(claims)
  }

  /** Newest first. */
  list(options: { limit: number; verdict?: 'accepted' | 'refused' }): readonly AttestationRecord[] {
    return this.#database
      .all(
        'SELECT * FROM attestations WHERE ?1 IS NULL OR verdict = ?1 ORDER BY seq DESC LIMIT ?2',
        options.verdict ?? null,
        options.limit,
      )
      .map(toRecord)
  }

  #trim(): void {
    this.#sinceTrim = 0
    for (const window of ["stage = 'auth' OR handshake IS NULL", "stage <> 'auth' AND handshake IS NOT NULL"]) {
      this.#database.run(
        `DELETE FROM attestations WHERE seq IN
           (SELECT seq FROM attestations WHERE ${window} ORDER BY seq DESC LIMIT -1 OFFSET ?)`,
        this.#keep,
      )
    }
  }
}

function toRecord(row: Row): AttestationRecord {
  const { checks, facts }: Pick<AttestationRecord, 'checks' | 'facts'> = JSON.parse(text(row, 'details'))
  const stage = text(row, 'stage')
  return {
    id: text(row, 'id'),
    handshake: optionalText(row, 'handshake'),
    at: new Date(integer(row, 'at_ms')),
    stage: stage === 'auth' || stage === 'attest' ? stage : 'release',
    tee: text(row, 'tee'),
    verdict: text(row, 'verdict') === 'accepted' ? 'accepted' : 'refused',
    code: optionalText(row, 'code'),
    reason: optionalText(row, 'reason'),
    hint: optionalText(row, 'hint'),
    checks,
    facts,
  }
}
