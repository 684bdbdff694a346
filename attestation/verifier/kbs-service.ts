/**
 * The guest's half of the KBS protocol: challenge, answer, resources. Versions 0.2 to 0.4.
 *
 * Between challenge and answer nothing is remembered here: the session travels sealed in the cookie, and only its use is
 * recorded, in the transaction that records the verdict. Any process on the same store can answer any step.
 */
import { randomBytes } from 'node:crypto'
import type { JWTPayload } from 'jose'
import type { JsonObject } from '#protocol/canonical-json'
import { toBase64 } from '#protocol/encoding'
import { CaissonError, DeniedError, MalformedError, UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import {
  encodeKbsChallenge,
  type KbsRequest,
  type KbsVersion,
  parseKbsAttestation,
  parseKbsRequest,
  parseKbsVersion,
  type TeePublicKey,
} from '#protocol/kbs-messages'
import { parseTeePublicKey } from '#protocol/tee-public-key'
import { earClaims } from '../token/ear.ts'
import { verifyToken } from '../token/verify-token.ts'
import { AttestationLog, type AttestationStage, type NewRecord } from './attestation-log.ts'
import type { AuditLog } from './audit-log.ts'
import type { Database } from './database.ts'
import type { Appraisal, EvidenceKind } from './evidence.ts'
import { encryptToGuest, type FlattenedJwe } from './jwe.ts'
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

/** An error that has been recorded: `correlationId` is the record's id. */
export class RecordedError extends Error {
  readonly correlationId: string

  constructor(correlationId: string, cause: unknown) {
    super('recorded', { cause })
    this.correlationId = correlationId
  }
}

interface ChallengeSession {
  readonly id: string
  readonly expiresMs: number
  readonly version: KbsVersion
  readonly tee: string
  readonly nonce: string
  readonly state: JsonObject
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
      const session = this.#challengeSession(cookie)
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
  async resource(
    segments: readonly string[],
    credentials: { cookie: string | undefined; authorization: string | undefined },
  ): Promise<FlattenedJwe> {
    const context = {
      handshake: undefined as string | undefined,
      stage: 'release' as const,
      tee: '?',
      path: segments.join('/'),
    }
    try {
      const path = parseResourcePath(segments)
      const claims = await this.#attestedClaims(credentials)
      context.handshake = this.#handshakeOf(claims)
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

  #challengeSession(cookie: string | undefined): ChallengeSession {
    if (cookie === undefined) {
      throw new UnverifiedError('ERR_SESSION_MISSING', 'the answer came without the session cookie', {
        hint: 'Send back the cookie kbs-session-id that came with the challenge.',
      })
    }
    const fields = new JsonFields(this.#options.sealer.open('challenge', cookie), 'session', 'ERR_KBS_MESSAGE')
    return {
      id: fields.string('id', 64),
      expiresMs: fields.integer('expiresMs', 0, Number.MAX_SAFE_INTEGER),
      version: parseKbsVersion(fields.string('version', 32)),
      tee: fields.string('tee', 32),
      nonce: fields.string('nonce', 256),
      state: jsonObject(fields),
    }
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

  /** Claims of the guest that asks: a live session of an attested guest wins over a bearer token. */
  async #attestedClaims(credentials: {
    cookie: string | undefined
    authorization: string | undefined
  }): Promise<JWTPayload> {
    const bySession = credentials.cookie === undefined ? undefined : this.#sessionClaims(credentials.cookie)
    if (bySession !== undefined) return bySession
    const token = /^Bearer (\S+)$/.exec(credentials.authorization ?? '')?.[1]
    if (token === undefined) {
      throw new UnverifiedError('ERR_TOKEN_MISSING', 'neither a session of an attested guest nor a token was sent', {
        hint: 'Attest first.',
      })
    }
    const { tokens, issuer, now } = this.#options
    return await verifyToken({ token, keys: tokens.publishedKeys(), issuer, now: now() })
  }

  #sessionClaims(cookie: string): JWTPayload | undefined {
    let id: string
    try {
      id = new JsonFields(this.#options.sealer.open('attested', cookie), 'session', 'ERR_KBS_MESSAGE').string('id', 64)
    } catch (error) {
      if (error instanceof UnverifiedError) return undefined
      throw error
    }
    const claims = this.#options.log.claimsOf(id)
    return typeof claims === 'object' && claims !== null ? { ...claims } : undefined
  }

  #handshakeOf({ jti }: JWTPayload): string | undefined {
    return jti === undefined ? undefined : (this.#options.log.find(jti)?.handshake ?? jti)
  }

  #recordingRefusal<T>(context: RefusalContext, work: () => T): T {
    try {
      return work()
    } catch (error) {
      throw this.#record(context, error)
    }
  }

  #record(context: RefusalContext, error: unknown): RecordedError {
    const { log, now } = this.#options
    const known = error instanceof CaissonError ? error : undefined
    const id = AttestationLog.newId()
    const record: NewRecord = {
      id,
      handshake: context.handshake,
      at: now(),
      stage: context.stage,
      tee: context.tee,
      verdict: 'refused',
      code: known?.code ?? 'ERR_INTERNAL',
      reason: known?.message ?? 'internal error',
      hint: known?.hint,
      checks: denialCheck(error),
      facts: context.path === undefined ? {} : { resource: context.path.slice(0, 512) },
    }
    try {
      log.add(record)
    } catch {
      // The store is what failed: the answer still goes out, with an id that leads to the process log only.
    }
    return new RecordedError(id, error)
  }
}

interface RefusalContext {
  readonly handshake: string | undefined
  readonly stage: AttestationStage
  readonly tee: string
  readonly path?: string
}

function denialCheck(error: unknown): NewRecord['checks'] {
  if (!(error instanceof DeniedError)) return []
  const remedy = error.hint === undefined ? {} : { remedy: error.hint }
  return [{ claim: error.field, expected: error.allowed, found: error.asked, ok: false, ...remedy }]
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

/** The key that the token binds; parsed again, since a session's claims come from the store. */
function teeKeyOf(claims: JWTPayload): TeePublicKey {
  const evidence = new JsonFields(claims.submods, 'submods', 'ERR_KBS_MESSAGE')
    .object('cpu0')
    .object('ear.veraison.annotated-evidence')
  return parseTeePublicKey(evidence.object('runtime_data_claims').object('tee-pubkey'))
}

function jsonObject(fields: JsonFields): JsonObject {
  const value = fields.json('state')
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fields.error('state', 'not an object')
  return Object.fromEntries(Object.entries(value))
}

function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new MalformedError('ERR_KBS_MESSAGE', 'the body is not UTF-8', { cause })
  }
}
