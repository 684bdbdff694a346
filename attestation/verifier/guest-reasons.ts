/**
 * POST /reason: why an attested guest refused something, for the tenant. The host was given a code and an id; under that id
 * the tenant finds the reason here.
 *
 * Whoever holds a token may write: the guest, and a container whose policy gives it the token. So a report is a note, never
 * a claim of the verifier's, and its records have a window of their own, out of which they push nothing but each other; so
 * have reports that are refused.
 */
import { createHash } from 'node:crypto'
import { DeniedError } from '#protocol/errors'
import { parseReasonReport, type ReasonReport } from '#protocol/reason-report'
import type { AttestationLog, NewRecord } from '../store/attestation-log.ts'
import type { Database, Sql } from '../store/database.ts'
import type { GuestClaims, GuestCredentials } from './guest-claims.ts'
import { utf8 } from './kbs-session.ts'
import { recordRefusal } from './refusal-record.ts'

export interface GuestReasonsOptions {
  readonly database: Database
  readonly guests: GuestClaims
  readonly log: AttestationLog
  readonly tenant: string
  readonly now: () => Date
}

/** Of one handshake: a host can make a guest refuse as often as it likes. */
const MAX_REASONS_PER_HANDSHAKE = 64

export class GuestReasons {
  readonly #options: GuestReasonsOptions

  constructor(options: GuestReasonsOptions) {
    this.#options = options
  }

  /** The same report again changes nothing. */
  async add(body: Uint8Array, credentials: GuestCredentials): Promise<void> {
    const { database, guests, log, tenant, now } = this.#options
    const context = { handshake: undefined as string | undefined, stage: 'reason' as const, tee: '?', path: 'reason' }
    try {
      const claims = await guests.find(credentials)
      const handshake = await guests.handshakeOf(claims)
      context.handshake = handshake
      const report = parseReasonReport(utf8(body))
      const record = { ...recordOf(report, now()), id: reasonId(tenant, report.correlationId), handshake }
      await database.transaction((sql) => this.#keep(sql, record))
    } catch (error) {
      throw await recordRefusal(log, context, { error, at: now() })
    }
  }

  /** In the transaction that counts: a guest that tells many at once, to several replicas, gets no more than its share. */
  async #keep(sql: Sql, record: NewRecord & { readonly id: string }): Promise<void> {
    const { log } = this.#options
    const { id, handshake } = record
    const known = await log.find(id, sql)
    if (known !== undefined && known.handshake === handshake) return
    if (known !== undefined) throw refused('another guest has told of this id', 'an id of its own')
    if (handshake === undefined || (await log.reasonsOf(handshake, sql)) >= MAX_REASONS_PER_HANDSHAKE) {
      throw refused('this guest has told enough', `${MAX_REASONS_PER_HANDSHAKE} reasons for each attestation`)
    }
    await log.add(record, sql)
  }
}

/** Ids are the guests' choice: those of different tenants must never meet. */
export function reasonId(tenant: string, correlationId: string): string {
  return createHash('sha256')
    .update(JSON.stringify([tenant, correlationId]))
    .digest('hex')
    .slice(0, 32)
}

function recordOf(report: ReasonReport, at: Date): NewRecord {
  const { denial, hint, request } = report
  const remedy = hint === undefined ? {} : { remedy: hint }
  return {
    handshake: undefined,
    at,
    stage: 'guest',
    tee: '?',
    verdict: 'refused',
    code: report.code,
    reason: report.message,
    hint,
    checks:
      denial === undefined
        ? []
        : [{ claim: denial.field, expected: denial.allowed, found: denial.asked, ok: false, ...remedy }],
    facts: {
      'correlation-id': report.correlationId,
      request: report.subject,
      ...(request === undefined ? {} : { 'request-case': request }),
    },
  }
}

function refused(problem: string, allowed: string): DeniedError {
  return new DeniedError('ERR_REASON_REFUSED', `the reason is not kept: ${problem}`, {
    field: 'reason',
    allowed,
    asked: 'one more',
    hint: 'The guest keeps it all the same, and gives it to its host, sealed to the tenant key of its initdata.',
  })
}
