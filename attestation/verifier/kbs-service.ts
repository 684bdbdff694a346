/**
 * The guest's half of the KBS protocol: challenge, answer, resources. Versions 0.2 to 0.4.
 *
 * Between challenge and answer nothing is remembered here: the session travels sealed in the cookie, and only its use is
 * recorded, in the transaction that records the verdict. Any process on the same store can answer any step.
 */
import { randomBytes } from 'node:crypto'
import { toBase64 } from '#protocol/encoding'
import { DeniedError, MalformedError, UnverifiedError } from '#protocol/errors'
import {
  encodeKbsChallenge,
  type KbsRequest,
  parseKbsAttestation,
  parseKbsRequest,
  type TeePublicKey,
} from '#protocol/kbs-messages'
import { earClaims } from '../token/ear.ts'
import { AttestationLog, type NewRecord } from './attestation-log.ts'
import { attestedClaims, type GuestCredentials, handshakeOf, teeKeyOf } from './attested-guest.ts'
import type { AuditLog } from './audit-log.ts'
import { type ChallengeSession, openChallengeSession } from './challenge-session.ts'
import type { Database } from './database.ts'
import type { Appraisal, EvidenceKind } from './evidence.ts'
import { encryptToGuest, type FlattenedJwe } from './jwe.ts'
import { RecordedError, type RefusalContext, recordRefusal } from './recorded-refusal.ts'
import type { ReferenceStore } from './reference-store.ts'
import { checkRelease } from './release.ts'
import { parseResourcePath, type ResourceStore } from './resource-store.ts'
import type { SessionSealer } from './session-seal.ts'
import { type SpentChallenges, spentError } from './spent-challenges.ts'
import type { TokenIssuer } from './token-issuer.ts'

export interface KbsServiceOptions {
  readonly database: Database
  readonly sealer: SessionSealer
  readonly tokens: TokenIssuer
  readonly spent: SpentChallenges
  readonly log: AttestationLog
  readonly audit: AuditLog
  readonly references: ReferenceStore
  readonly resources: ResourceStore
  readonly kinds: readonly EvidenceKind[]
  readonly issuer: string
  readonly sessionLifetimeMs: number
  readonly tokenLifetimeMs: number
  readonly now: () => Date
}

export interface SessionReply<T> {
  readonly content: T
  /** New value of the session cookie and when it expires. */
  readonly cookie: string
  readonly expiresAt: Date
}

const NONCE_BYTES = 32

export class KbsService {
  readonly #options: KbsServiceOptions

  constructor(options: KbsServiceOptions) {
    this.#options = options
  }

  /** POST /auth: the body is a Request, the reply a Challenge. */
  challenge(body: Uint8Array): SessionReply<string> {
    const id = AttestationLog.newId()
    const context = { handshake: id, stage: 'auth' as const, tee: '?' }
    return this.#recordingRefusal(context, () => {
      const request = parseKbsRequest(utf8(body))
      context.tee = request.tee
      const offer = this.#kind(request).challenge(request)
      const { sealer, now, sessionLifetimeMs } = this.#options
      const nonce = toBase64(randomBytes(NONCE_BYTES))
      const expiresMs = now().getTime() + sessionLifetimeMs
      const session = { id, version: request.version, tee: request.tee, nonce, state: offer.state }
      return {
        content: encodeKbsChallenge({ nonce, ...(offer.tpm === undefined ? {} : { tpm: offer.tpm }) }),
        cookie: sealer.seal('challenge', expiresMs, session),
        expiresAt: new Date(expiresMs),
      }
    })
  }

  /** POST /attest: the body is an Attestation, the reply a token. */
  async attest(cookie: string | undefined, body: Uint8Array): Promise<SessionReply<{ token: string }>> {
    const context = { handshake: undefined as string | undefined, stage: 'attest' as const, tee: '?' }
    const { session, nonce, teePublicKey, appraisal } = this.#recordingRefusal(context, () => {
      const session = openChallengeSession(this.#options.sealer, cookie)
      context.handshake = session.id
      context.tee = session.tee
      if (this.#options.spent.isSpent(session.id)) throw spentError()
      const attestation = parseKbsAttestation(utf8(body), session.version)
      // Version 0.2 does not repeat the nonce; the evidence is bound to the session's in any case.
      if (session.version !== '0.2.0' && attestation.nonce !== session.nonce) {
        throw new UnverifiedError('ERR_NONCE_MISMATCH', 'the answer names the nonce of another challenge', {
          hint: 'An answer belongs to the challenge whose cookie is sent with it.',
        })
      }
      const references = this.#options.references.list()
      const kind = this.#kind(session)
      const appraisal = kind.appraise({ ...session, attestation, references })
      return { session, nonce: session.nonce, teePublicKey: attestation.teePublicKey, appraisal }
    })
    if (!appraisal.accepted) throw this.#refused(session, appraisal)
    return await this.#accepted(session, appraisal, { nonce, teePublicKey })
  }

  /** GET /resource/repository/type/tag: the content, encrypted to the key of the attested guest. */
  async resource(segments: readonly string[], credentials: GuestCredentials): Promise<FlattenedJwe> {
    const context = {
      handshake: undefined as string | undefined,
      stage: 'release' as const,
      tee: '?',
      path: segments.join('/'),
    }
    try {
      const path = parseResourcePath(segments)
      const claims = await attestedClaims(this.#options, credentials)
      context.handshake = handshakeOf(this.#options.log, claims)
      checkRelease({ kind: 'attested' }, claims) // before it is told whether the resource exists
      const resource = this.#options.resources.find(path)
      if (resource === undefined) {
        throw new DeniedError('ERR_RESOURCE_NOT_FOUND', `there is no resource ${path}`, {
          field: 'resource',
          allowed: 'the names that `caisson verifier resource list` prints',
          asked: path,
          hint: `Store it: caisson verifier resource put ${path} FILE`,
        })
      }
      checkRelease(resource.release, claims)
      const jwe = encryptToGuest(teeKeyOf(claims), resource.content)
      const { database, audit, now } = this.#options
      const actor = `guest ${context.handshake ?? '?'}`
      const entry = { actor, action: 'resource.release', subject: path, correlation: context.handshake } as const
      database.transaction(() => audit.add({ at: now(), ...entry, verdict: 'accepted' }))
      return jwe
    } catch (error) {
      throw this.#record(context, error)
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
    bound: { nonce: string; teePublicKey: TeePublicKey },
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
    try {
      database.transaction(() => {
        spent.spend(session.id, session.expiresMs, at)
        log.add({ ...base(session, at), id, verdict: 'accepted', ...appraisal, claims })
        audit.add(auditEntry(at, id, appraisal))
      })
    } catch (error) {
      throw this.#record({ handshake: session.id, stage: 'attest', tee: session.tee }, error)
    }
    const expiresAt = new Date(claims.exp * 1000)
    return { content: { token }, cookie: sealer.seal('attested', expiresAt.getTime(), { id }), expiresAt }
  }

  /** Records a negative verdict; it uses the challenge up like a positive one. */
  #refused(session: ChallengeSession, appraisal: Extract<Appraisal, { accepted: false }>): RecordedError {
    const { database, spent, log, audit, now } = this.#options
    const at = now()
    const id = AttestationLog.newId()
    const error = new UnverifiedError(appraisal.code, appraisal.reason, { hint: appraisal.hint })
    try {
      database.transaction(() => {
        spent.spend(session.id, session.expiresMs, at)
        log.add({ ...base(session, at), id, verdict: 'refused', ...appraisal })
        audit.add(auditEntry(at, id, appraisal))
      })
    } catch (failure) {
      return this.#record({ handshake: session.id, stage: 'attest', tee: session.tee }, failure)
    }
    return new RecordedError(id, error)
  }

  #recordingRefusal<T>(context: RefusalContext, work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw this.#record(context, error)
    }
  }

  #record(context: RefusalContext, error: unknown): RecordedError {
    return recordRefusal(this.#options, context, error)
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

function auditEntry(at: Date, id: string, appraisal: Appraisal): Parameters<AuditLog['add']>[0] {
  return {
    at,
    actor: `guest ${appraisal.facts['ek-fingerprint'] ?? '?'}`,
    action: 'attest',
    subject: appraisal.accepted ? appraisal.referenceId : appraisal.code,
    verdict: appraisal.accepted ? 'accepted' : 'refused',
    correlation: id,
  }
}

function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new MalformedError('ERR_KBS_MESSAGE', 'the body is not UTF-8', { cause })
  }
}
