/** GET /resource/…: what the tenant keeps for guests, to those whose token meets its terms, encrypted to their key. */
import { createHash } from 'node:crypto'
import type { JWTPayload } from 'jose'
import { DeniedError } from '#protocol/errors'
import type { TeePublicKey } from '#protocol/kbs-messages'
import type { AttestationLog } from '../store/attestation-log.ts'
import type { AuditLog } from '../store/audit-log.ts'
import type { Database } from '../store/database.ts'
import { parseResourcePath, type Resource, type ResourceStore } from '../store/resource-store.ts'
import type { GuestClaims, GuestCredentials } from './guest-claims.ts'
import { encryptToGuest, type FlattenedJwe } from './jwe.ts'
import { teeKeyOf } from './kbs-session.ts'
import { recordRefusal } from './refusal-record.ts'
import { checkRelease } from './release.ts'

export interface ResourceReleaseOptions {
  readonly database: Database
  readonly guests: GuestClaims
  readonly log: AttestationLog
  readonly audit: AuditLog
  readonly resources: ResourceStore
  readonly now: () => Date
}

export class ResourceRelease {
  readonly #options: ResourceReleaseOptions

  constructor(options: ResourceReleaseOptions) {
    this.#options = options
  }

  async release(segments: readonly string[], credentials: GuestCredentials): Promise<FlattenedJwe> {
    const { guests } = this.#options
    const context = {
      handshake: undefined as string | undefined,
      stage: 'release' as const,
      tee: '?',
      path: segments.join('/'),
    }
    try {
      const path = parseResourcePath(segments)
      const claims = await guests.find(credentials)
      context.handshake = await guests.handshakeOf(claims)
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
    const holder = thumbprint(key)
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
}

/** RFC 7638 section 3: SHA-256 over the members that make the key, in the order of their names. */
function thumbprint(key: TeePublicKey): string {
  const members =
    key.kty === 'EC' ? { crv: key.crv, kty: key.kty, x: key.x, y: key.y } : { e: key.e, kty: key.kty, n: key.n }
  return createHash('sha256').update(JSON.stringify(members)).digest('base64url')
}

function unknownResource(path: string): DeniedError {
  return new DeniedError('ERR_RESOURCE_NOT_FOUND', `there is no resource ${path}`, {
    field: 'resource',
    allowed: 'the names that `caisson verifier resource list` prints',
    asked: path,
    hint: `Store it: caisson verifier resource put ${path} FILE`,
  })
}
