/**
 * Administrators prove themselves with a bearer JWT signed by a registered Ed25519 key (EdDSA), valid for minutes.
 */
import { createHash, generateKeyPairSync } from 'node:crypto'
import { importJWK, type JWK, jwtVerify } from 'jose'
import { toHex } from '#protocol/encoding'
import { DeniedError, MalformedError, UnverifiedError } from '#protocol/errors'
import type { Role, TenantAdmin } from '../../store/tenant-store.ts'

/** Tokens that live longer are refused: a leaked one must be worthless soon. */
const MAX_LIFETIME_S = 600
/** Difference allowed between the clocks of administrator and verifier. */
const CLOCK_TOLERANCE_S = 30
const MAX_TOKEN_CHARACTERS = 4_096

export interface AdminKey {
  /** First 16 hex digits of the SHA-256 of the public key: names the administrator in the audit log. */
  readonly id: string
  readonly privateJwk: JWK
  readonly publicJwk: JWK
}

/** A new administrator's key. The verifier is given `publicJwk`, the administrator keeps `privateJwk`. */
export function createAdminKey(): AdminKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const publicJwk = publicPart(publicKey.export({ format: 'jwk' }))
  const id = adminKeyId(publicJwk)
  const { d = '' } = privateKey.export({ format: 'jwk' })
  return { id, publicJwk: { ...publicJwk, kid: id }, privateJwk: { ...publicJwk, d, kid: id } }
}

/** @throws MalformedError ERR_ADMIN_KEY unless it is an Ed25519 key */
export function adminKeyId(jwk: JWK): string {
  return toHex(
    createHash('sha256')
      .update(publicPart(jwk).x ?? '')
      .digest(),
  ).slice(0, 16)
}

/** @throws MalformedError ERR_ADMIN_KEY unless it is an Ed25519 key */
export function publicPart(jwk: { kty?: string; crv?: string; x?: string }): JWK & { x: string } {
  if (jwk.kty !== 'OKP' || jwk.crv !== 'Ed25519' || typeof jwk.x !== 'string' || !/^[\w-]{43}$/.test(jwk.x)) {
    throw new MalformedError('ERR_ADMIN_KEY', 'an administrator key must be an Ed25519 JWK')
  }
  return { kty: 'OKP', crv: 'Ed25519', x: jwk.x }
}

/** Who makes a request, and what it may do. */
export interface Administrator {
  /** Id of the key: names the administrator in the audit log. */
  readonly id: string
  readonly role: Role
  /** Of the service itself: may do everything in every tenant, and manage tenants. */
  readonly root: boolean
}

export class AdminAuthenticator {
  readonly #root: readonly JWK[]
  readonly #now: () => Date

  /** @param options.keys public keys of the service's own administrators */
  constructor(options: { keys: readonly JWK[]; now: () => Date }) {
    this.#root = options.keys.map(publicPart)
    this.#now = options.now
  }

  /**
   * Who signed the request's bearer token.
   *
   * @throws UnverifiedError ERR_ADMIN_AUTH; it does not say which check failed
   * @throws DeniedError ERR_ADMIN_ROLE when the key is known and its role does not reach
   */
  async authenticate(
    authorization: string | undefined,
    options: { readonly admins: readonly TenantAdmin[]; readonly needs: readonly Role[] },
  ): Promise<Administrator> {
    const admin = await this.#find(authorization, options.admins)
    if (admin === undefined) {
      throw new UnverifiedError('ERR_ADMIN_AUTH', 'this needs a current token signed by an administrator key', {
        hint: 'Use a key that is registered for this tenant, and check the clock of this machine.',
      })
    }
    if (admin.root || options.needs.includes(admin.role)) return admin
    throw new DeniedError('ERR_ADMIN_ROLE', `the role ${admin.role} does not permit this`, {
      field: 'role',
      allowed: options.needs.length === 0 ? 'administrators of the service' : options.needs.join(', '),
      asked: admin.role,
      hint: 'Ask an owner of the tenant.',
    })
  }

  async #find(authorization: string | undefined, admins: readonly TenantAdmin[]): Promise<Administrator | undefined> {
    const token = /^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/.exec(authorization ?? '')?.[1]
    if (token === undefined || token.length > MAX_TOKEN_CHARACTERS) return undefined
    for (const jwk of this.#root) {
      if (await this.#verifies(token, jwk)) return { id: adminKeyId(jwk), role: 'owner', root: true }
    }
    for (const { key, role } of admins) {
      if (await this.#verifies(token, publicPart(key))) return { id: adminKeyId(key), role, root: false }
    }
    return undefined
  }

  async #verifies(token: string, jwk: JWK): Promise<boolean> {
    try {
      const { payload } = await jwtVerify(token, await importJWK(jwk, 'EdDSA'), {
        algorithms: ['EdDSA'],
        currentDate: this.#now(),
        clockTolerance: CLOCK_TOLERANCE_S,
        maxTokenAge: MAX_LIFETIME_S,
        requiredClaims: ['iat', 'exp'],
      })
      return (payload.exp ?? Number.POSITIVE_INFINITY) - (payload.iat ?? 0) <= MAX_LIFETIME_S
    } catch {
      return false // every reason looks alike from outside
    }
  }
}
