/**
 * The guest's half of the KBS protocol: challenge and answer. Versions 0.2 to 0.4.
 *
 * Between challenge and answer nothing is remembered here: the session travels sealed in the cookie, and only its use is
 * recorded, in the transaction that records the verdict. Any process on the same store can answer any step.
 */
import { randomBytes } from 'node:crypto'
import { toBase64 } from '#protocol/encoding'
import { UnverifiedError } from '#protocol/errors'
import {
  encodeKbsChallenge,
  type KbsRequest,
  parseKbsAttestation,
  parseKbsRequest,
  type TeePublicKey,
} from '#protocol/kbs-messages'
import { AttestationLog, type NewRecord } from '../store/attestation-log.ts'
import type { AuditEntry, AuditLog } from '../store/audit-log.ts'
import type { Database } from '../store/database.ts'
import type { PolicyStore } from '../store/policy-store.ts'
import { countsAt, type ReferenceStore } from '../store/reference-store.ts'
import { type SpentChallenges, spentError } from '../store/spent-challenges.ts'
import { earClaims } from '../token/ear.ts'
import { boundJson } from './bounded-text.ts'
import type { AnswerInput, Appraisal, EvidenceKind } from './evidence.ts'
import { inSlices } from './in-slices.ts'
import { readInitdata } from './initdata-document.ts'
import { type ChallengeSession, openChallengeSession, type SessionReply, utf8 } from './kbs-session.ts'
import { RecordedError, type RefusalContext, recordRefusal } from './refusal-record.ts'
import type { SessionSealer } from './session-seal.ts'
import { type TenantDemands, tenantDemands } from './tenant-demands.ts'
import type { TokenIssuer } from './token-issuer.ts'

export interface KbsServiceOptions {
  readonly tenant: string
  readonly database: Database
  readonly sealer: SessionSealer
  readonly tokens: TokenIssuer
  readonly spent: SpentChallenges
  readonly log: AttestationLog
  readonly audit: AuditLog
  readonly references: ReferenceStore
  readonly policies: PolicyStore
  /** Whether the operator's own choice of TPM CAs counts. */
  readonly operator: boolean
  readonly kinds: readonly EvidenceKind[]
  readonly issuer: string
  readonly sessionLifetimeMs: number
  readonly tokenLifetimeMs: number
  readonly now: () => Date
}

const NONCE_BYTES = 32

export class KbsService {
  readonly #options: KbsServiceOptions

  constructor(options: KbsServiceOptions) {
    this.#options = options
  }

  /** POST /auth: the body is a Request, the reply a Challenge. */
  async challenge(body: Uint8Array): Promise<SessionReply<string>> {
    const id = AttestationLog.newId()
    return await this.#recordingRefusal({ handshake: id, stage: 'auth', tee: '?' }, async (context) => {
      const request = parseKbsRequest(utf8(body))
      context.tee = request.tee
      const offer = await this.#kind(request).challenge(request, () => this.#demands())
      const { sealer, now, sessionLifetimeMs } = this.#options
      const nonce = toBase64(randomBytes(NONCE_BYTES))
      const expiresMs = now().getTime() + sessionLifetimeMs
      const session = { id, version: request.version, tee: request.tee, nonce, state: offer.state }
      return {
        content: encodeKbsChallenge({ nonce, ...(offer.tpm === undefined ? {} : { tpm: offer.tpm }) }),
        cookie: await sealer.seal('challenge', expiresMs, session),
        expiresAt: new Date(expiresMs),
      }
    })
  }

  /** POST /attest: the body is an Attestation, the reply a token. */
  async attest(cookie: string | undefined, body: Uint8Array): Promise<SessionReply<{ token: string }>> {
    return await this.#recordingRefusal({ handshake: undefined, stage: 'attest', tee: '?' }, async (context) => {
      const session = await openChallengeSession(this.#options.sealer, cookie)
      context.handshake = session.id
      context.tee = session.tee
      if (await this.#options.spent.isSpent(session.id)) throw spentError()
      const text = utf8(body)
      await inSlices(boundJson(text))
      const attestation = parseKbsAttestation(text, session.version)
      // Version 0.2 does not repeat the nonce; the evidence is bound to the session's in any case.
      if (session.version !== '0.2.0' && attestation.nonce !== session.nonce) {
        throw new UnverifiedError('ERR_NONCE_MISMATCH', 'the answer names the nonce of another challenge', {
          hint: 'An answer belongs to the challenge whose cookie is sent with it.',
        })
      }
      const initdata = await inSlices(readInitdata(attestation.initdataToml))
      const appraisal = await this.#kind(session).appraise({
        ...session,
        tenant: this.#options.tenant,
        attestation,
        initdata,
        demands: await this.#demands(),
        ...(await this.#references()),
      })
      if (!appraisal.accepted) throw await this.#refused(session, appraisal)
      const { teePublicKey } = attestation
      const bound = { nonce: session.nonce, teePublicKey, initdataClaims: initdata?.documents ?? {} }
      return await this.#accepted(session, appraisal, bound)
    })
  }

  /** Read for each attestation, so that what another replica changed counts at once. */
  async #demands(): Promise<TenantDemands> {
    return tenantDemands(await this.#options.policies.list(), this.#options.operator)
  }

  async #references(): Promise<Pick<AnswerInput, 'references' | 'otherReferences'>> {
    const at = this.#options.now()
    const all = await this.#options.references.list()
    return {
      references: all.filter((each) => countsAt(each, at)),
      otherReferences: all.filter((each) => !countsAt(each, at)),
    }
  }

  #kind(of: Pick<KbsRequest, 'tee'>): EvidenceKind {
    const kind = this.#options.kinds.find(({ tee }) => tee === of.tee)
    if (kind !== undefined) return kind
    const known = this.#options.kinds.map(({ tee }) => tee).join(', ')
    throw new UnverifiedError('ERR_TEE_UNSUPPORTED', `evidence of kind ${JSON.stringify(of.tee)} is not appraised`, {
      hint: `This verifier appraises: ${known}.`,
    })
  }

  async #accepted(
    session: ChallengeSession,
    appraisal: Extract<Appraisal, { accepted: true }>,
    bound: { nonce: string; teePublicKey: TeePublicKey; initdataClaims: Readonly<Record<string, string>> },
  ): Promise<SessionReply<{ token: string }>> {
    const { database, spent, log, audit, tokens, sealer, issuer, tokenLifetimeMs, now } = this.#options
    const at = now()
    const id = AttestationLog.newId()
    const claims = earClaims({
      issuer,
      attestationId: id,
      issuedAt: at,
      lifetimeMs: tokenLifetimeMs,
      tee: session.tee,
      ...bound,
      ...appraisal,
    })
    const token = await tokens.sign(claims, 'JWT') // worth nothing yet: it leaves this function after the commit
    const expiresAt = new Date(claims.exp * 1000)
    const cookie = await sealer.seal('attested', expiresAt.getTime(), { id })
    await database.transaction(async (sql) => {
      await spent.spend(sql, session.id, session.expiresMs, at)
      await log.add({ ...base(session, at), id, verdict: 'accepted', ...appraisal, claims }, sql)
      await audit.add(sql, auditEntry(at, id, appraisal))
    })
    return { content: { token }, cookie, expiresAt }
  }

  /** Records a negative verdict; it uses the challenge up like a positive one. */
  async #refused(
    session: ChallengeSession,
    appraisal: Extract<Appraisal, { accepted: false }>,
  ): Promise<RecordedError> {
    const { database, spent, log, audit, now } = this.#options
    const at = now()
    const id = AttestationLog.newId()
    await database.transaction(async (sql) => {
      await spent.spend(sql, session.id, session.expiresMs, at)
      await log.add({ ...base(session, at), id, verdict: 'refused', ...appraisal }, sql)
      await audit.add(sql, auditEntry(at, id, appraisal))
    })
    return new RecordedError(id, new UnverifiedError(appraisal.code, appraisal.reason, { hint: appraisal.hint }))
  }

  async #recordingRefusal<T>(context: RefusalContext, work: (context: RefusalContext) => Promise<T>): Promise<T> {
    try {
      return await work(context)
    } catch (error) {
      throw await recordRefusal(this.#options.log, context, { error, at: this.#options.now() })
    }
  }
}

function base(
  session: ChallengeSession,
  at: Date,
): Pick<NewRecord, 'handshake' | 'at' | 'stage' | 'tee'> & { code: undefined; reason: undefined; hint: undefined } {
  return {
    handshake: session.id,
    at,
    stage: 'attest',
    tee: session.tee,
    code: undefined,
    reason: undefined,
    hint: undefined,
  }
}

function auditEntry(at: Date, id: string, appraisal: Appraisal): AuditEntry {
  return {
    at,
    actor: `guest ${appraisal.facts['ek-fingerprint'] ?? appraisal.facts['chip-id'] ?? '?'}`,
    action: 'attest',
    subject: appraisal.accepted ? (appraisal.referenceId ?? `policy ${appraisal.policyId}`) : appraisal.code,
    verdict: appraisal.accepted ? 'accepted' : 'refused',
    correlation: id,
  }
}
