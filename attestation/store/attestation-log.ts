/**
 * Every attestation and every refusal, for the tenant: what was claimed, what was expected, what was found.
 *
 * Guest and host are told a code and the record's id, nothing else. Anybody can cause refusals, so the log is a window:
 * the oldest records go when it is full. What strangers cause (refused requests for a challenge, calls without a session)
 * has a window of its own, so that they cannot push out the records of guests that were challenged; what guests tell of
 * themselves has another, and what they tell in vain a fourth.
 */
import { randomBytes } from 'node:crypto'
import { toHex } from '#protocol/encoding'
import type { Database, Sql } from './database.ts'
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

/**
 * Where the guest was on its way: asking for a challenge, answering it, fetching a resource; `guest`: it refused something
 * itself, and told why; `reason`: it told of something, and that was not kept.
 */
const STAGES = ['auth', 'attest', 'release', 'guest', 'reason'] as const
export type AttestationStage = (typeof STAGES)[number]

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
/**
 * Of strangers, of the verifier about guests, of guests about themselves, and of what guests told in vain: none pushes out
 * another's. Each has an index.
 */
export const RECORD_WINDOWS: readonly string[] = [
  "(stage = 'auth' OR handshake IS NULL)",
  "(stage NOT IN ('auth', 'guest', 'reason') AND handshake IS NOT NULL)",
  "(stage = 'guest' AND handshake IS NOT NULL)",
  "(stage = 'reason' AND handshake IS NOT NULL)",
]
/** Shown of one handshake. */
const MAX_OF_HANDSHAKE = 100
/** Old records are removed each time this many came in. */
const TRIM_EVERY = 64

export class AttestationLog {
  readonly #database: Database
  readonly #tenant: string
  readonly #keep: number
  #sinceTrim = 0

  /** @param options.keep records kept in each window */
  constructor(database: Database, options: { tenant: string; keep: number }) {
    this.#database = database
    this.#tenant = options.tenant
    this.#keep = options.keep
  }

  static newId(): string {
    return toHex(randomBytes(12))
  }

  /** Returns the record's id. @param sql the transaction of what the record is about; default: one of its own */
  async add(record: NewRecord, sql: Sql = this.#database): Promise<string> {
    const id = record.id ?? AttestationLog.newId()
    await sql.run(
      `INSERT INTO attestation_records
         (tenant, id, handshake, at_ms, stage, tee, verdict, code, reason, hint, details, claims)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      this.#tenant,
      id,
      record.handshake ?? null,
      record.at.getTime(),
      record.stage,
      storable(record.tee.slice(0, 32)),
      record.verdict,
      record.code ?? null,
      storable(record.reason?.slice(0, MAX_TEXT_CHARACTERS)),
      storable(record.hint?.slice(0, MAX_TEXT_CHARACTERS)),
      JSON.stringify({ checks: record.checks, facts: record.facts }),
      record.claims === undefined ? null : JSON.stringify(record.claims),
    )
    if (++this.#sinceTrim >= TRIM_EVERY) await this.#trim(sql)
    return id
  }

  /** By correlation id. @param sql the transaction that decides by it */
  async find(id: string, sql: Sql = this.#database): Promise<AttestationRecord | undefined> {
    const row = await sql.get('SELECT * FROM attestation_records WHERE tenant = ? AND id = ?', this.#tenant, id)
    return row === undefined ? undefined : toRecord(row)
  }

  /**
   * The record, then others of its handshake, oldest first: all of them, or where there are very many the attestation that
   * succeeded and the newest.
   */
  async handshakeOf(id: string): Promise<readonly AttestationRecord[]> {
    const find = 'SELECT * FROM attestation_records WHERE tenant = ? AND id = ?'
    const asked = await this.#database.get(find, this.#tenant, id)
    if (asked === undefined) return []
    const others = await this.#database.all(
      `SELECT * FROM attestation_records WHERE tenant = ? AND handshake = ? AND id <> ?
         ORDER BY CASE WHEN stage = 'attest' AND verdict = 'accepted' THEN 0 ELSE 1 END, seq DESC LIMIT ?`,
      this.#tenant,
      optionalText(asked, 'handshake') ?? null,
      id,
      MAX_OF_HANDSHAKE - 1,
    )
    return [asked, ...others.toSorted((a, b) => integer(a, 'seq') - integer(b, 'seq'))].map(toRecord)
  }

  /** How many reasons a guest has told since this handshake. @param sql the transaction that decides by it */
  async reasonsOf(handshake: string, sql: Sql): Promise<number> {
    const query =
      "SELECT count(*) AS told FROM attestation_records WHERE tenant = ? AND handshake = ? AND stage = 'guest'"
    const row = await sql.get(query, this.#tenant, handshake)
    return row === undefined ? 0 : integer(row, 'told')
  }

  /** The handshake that a record belongs to. */
  async handshakeIdOf(id: string): Promise<string | undefined> {
    const query = 'SELECT handshake FROM attestation_records WHERE tenant = ? AND id = ?'
    const row = await this.#database.get(query, this.#tenant, id)
    return row === undefined ? undefined : optionalText(row, 'handshake')
  }

  /** Token payload of an accepted attestation. */
  async claimsOf(id: string): Promise<unknown> {
    const query = 'SELECT claims FROM attestation_records WHERE tenant = ? AND id = ?'
    const row = await this.#database.get(query, this.#tenant, id)
    const claims = row === undefined ? undefined : optionalText(row, 'claims')
    return claims === undefined ? undefined : JSON.parse(claims)
  }

  /** Newest first. */
  async list(options: { limit: number; verdict?: 'accepted' | 'refused' }): Promise<readonly AttestationRecord[]> {
    const { limit, verdict } = options
    const [condition, values] = verdict === undefined ? ['', []] : ['AND verdict = ?', [verdict]]
    const query = `SELECT * FROM attestation_records WHERE tenant = ? ${condition} ORDER BY seq DESC LIMIT ?`
    return (await this.#database.all(query, this.#tenant, ...values, limit)).map(toRecord)
  }

  async #trim(sql: Sql): Promise<void> {
    this.#sinceTrim = 0
    for (const window of RECORD_WINDOWS) {
      await sql.run(
        `DELETE FROM attestation_records WHERE tenant = ? AND ${window} AND seq <=
           (SELECT seq FROM attestation_records WHERE tenant = ? AND ${window} ORDER BY seq DESC LIMIT 1 OFFSET ?)`,
        this.#tenant,
        this.#tenant,
        this.#keep,
      )
    }
  }
}

/** PostgreSQL's text holds no NUL; strangers choose some of these words. */
function storable(text: string): string
function storable(text: string | undefined): string | null
function storable(text: string | undefined): string | null {
  return text?.replaceAll('\0', '\uFFFD') ?? null
}

function toRecord(row: Row): AttestationRecord {
  const { checks, facts }: Pick<AttestationRecord, 'checks' | 'facts'> = JSON.parse(text(row, 'details'))
  const stage = text(row, 'stage')
  return {
    // A guest's own id is unique in its tenant alone, so the row has another.
    id: (stage === 'guest' ? facts['correlation-id'] : undefined) ?? text(row, 'id'),
    handshake: optionalText(row, 'handshake'),
    at: new Date(integer(row, 'at_ms')),
    stage: STAGES.find((known) => known === stage) ?? 'release',
    tee: text(row, 'tee'),
    verdict: text(row, 'verdict') === 'accepted' ? 'accepted' : 'refused',
    code: optionalText(row, 'code'),
    reason: optionalText(row, 'reason'),
    hint: optionalText(row, 'hint'),
    checks,
    facts,
  }
}
