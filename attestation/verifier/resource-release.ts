/** GET /resource/…: what the tenant keeps for guests, to those whose token meets its terms, encrypted to their key. */
import { calculateJwkThumbprint, type JWTPayload } from 'jose'
import { DeniedError, UnverifiedError } from '#protocol/errors'
import type { AttestationLog } from '../store/attestation-log.ts'
import type { AuditLog } from '../store/audit-log.ts'
import type { Database } from '../store/database.ts'
import { parseResourcePath, type Resource, type ResourceStore } from '../store/resource-store.ts'
import { verifyToken } from '../token/verify-token.ts'
import { encryptToGuest, type FlattenedJwe } from './jwe.ts'
import { openAttestedSession, teeKeyOf } from './kbs-session.ts'
import { recordRefusal } from './refusal-record.ts'
import { checkRelease } from './release.ts'
import type { SessionSealer } from './session-seal.ts'
import type { TokenIssuer } from './token-issuer.ts'

export interface ResourceReleaseOptions {
  readonly database: Database
  readonly sealer: SessionSealer
  readonly tokens: TokenIssuer
  readonly log: AttestationLog
  readonly audit: AuditLog
  readonly resources: ResourceStore
  readonly issuer: string
  readonly now: () => Date
}

export interface GuestCredentials {
  readonly cookie: string | undefined
  readonly authorization: string | undefined
}

export class ResourceRelease {
  readonly #options: ResourceReleaseOptions

  constructor(options: ResourceReleaseOptions) {
    this.#options = options
  }

  async release(segments: readonly string[], credentials: GuestCredentials): Promise<FlattenedJwe> {
    const context = {
      handshake: undefined as string | undefined,
      stage: 'release' as const,
      tee: '?',
      path: segments.join('/'),
    }
    try {
      const path = parseResourcePath(segments)
      const claims = await this.#attestedClaims(credentials)
      context.handshake = await this.#handshakeOf(claims)
      checkRelease({ kind: 'attested' }, claims) // before it is told whether the resource exists
      const resource = await this.#options.resources.find(path)
      if (resource === undefined) throw unknownResource(path)
      checkRelease(resource.release, claims)
      this.#checkTime(resource)
      return await this.#hand(resource, claims, context.handshake)
    } catch (error) {
      throw await recordRefusal(this.#options.log, context, { error, at: this.#options.now() })
    }
  }

  /** Whoever gets it is on record before it leaves. */
  async #hand(resource: Resource, claims: JWTPayload, handshake: string | undefined): Promise<FlattenedJwe> {
    const { database, resources, audit, now } = this.#options
    const key = teeKeyOf(claims)
    const jwe = encryptToGuest(key, resource.content)
    const holder = await calculateJwkThumbprint({ ...key })
    const at = now()
    await database.transaction(async (sql) => {
      await resources.hold(sql, resource, holder, at)
      const actor = `guest ${handshake ?? '?'}`
      const entry = { at, actor, action: 'resource.release', subject: `${resource.path} version ${resource.version}` }
      await audit.add(sql, { ...entry, verdict: 'accepted', correlation: handshake })
    })
    return jwe
  }

  #checkTime({ path, notBefore, notAfter }: Resource): void {
    const now = this.#options.now()
    const [early, late] = [notBefore !== null && now < notBefore, notAfter !== null && now >= notAfter]
    if (!early && !late) return
    throw new DeniedError('ERR_RESOURCE_TIME', `${path} is released at another time`, {
      field: early ? 'not-before' : 'not-after',
      allowed: `${notBefore?.toISOString() ?? 'any time'} to ${notAfter?.toISOString() ?? 'any time'}`,
      asked: now.toISOString(),
      hint: 'Store it again with other times.',
    })
  }

  /** Claims of the guest that asks: a live session of an attested guest wins over a bearer token. */
  async #attestedClaims({ cookie, authorization }: GuestCredentials): Promise<JWTPayload> {
    const { sealer, log, tokens, issuer, now } = this.#options
    const id = cookie === undefined ? undefined : await openAttestedSession(sealer, cookie)
    const claims = id === undefined ? undefined : await log.claimsOf(id)
    if (typeof claims === 'object' && claims !== null) return { ...claims }
    const token = /^Bearer (\S+)$/.exec(authorization ?? '')?.[1]
    if (token === undefined) {
      throw new UnverifiedError('ERR_TOKEN_MISSING', 'neither a session of an attested guest nor a token was sent', {
        hint: 'Attest first.',
      })
    }
    return await verifyToken({ token, keys: await tokens.publishedKeys(), issuer, now: now() })
  }

  async #handshakeOf({ jti }: JWTPayload): Promise<string | undefined> {
    return jti === undefined ? undefined : ((await this.#options.log.find(jti))?.handshake ?? jti)
  }
}

function unknownResource(path: string): DeniedError {
  return new DeniedError('ERR_RESOURCE_NOT_FOUND', `there is no resource ${path}`, {
    field: 'resource',
    allowed: 'the names that `caisson verifier resource list` prints',
    asked: path,
    hint: `Store it: caisson verifier resource put ${path} FILE`,
  })
}
