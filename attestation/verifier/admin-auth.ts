/**
 * Administrators prove themselves with a bearer JWT signed by a registered Ed25519 key (EdDSA), valid for minutes.
 */
import { createHash, generateKeyPairSync } from 'node:crypto'
import { importJWK, type JWK, jwtVerify } from 'jose'
import { toHex } from '#protocol/encoding'
import { MalformedError, UnverifiedError } from '#protocol/errors'

/** Tokens that live longer are refused: a leaked one must be worthless soon. */
const MAX_LIFETIME_S = 600
/** Difference allowed between the clocks of administrator and verifier. */
const CLOCK_TOLERANCE_S = 30

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

function publicPart(jwk: { kty?: string; crv?: string; x?: string }): JWK & { x: string } {
  if (jwk.kty !== 'OKP' || jwk.crv !== 'Ed25519' || typeof jwk.x !== 'string' || !/^[\w-]{43}$/.test(jwk.x)) {
    throw new MalformedError('ERR_ADMIN_KEY', 'an administrator key must be an Ed25519 JWK')
  }
  return { kty: 'OKP', crv: 'Ed25519', x: jwk.x }
}

export class AdminAuthenticator {
  readonly #keys: ReadonlyMap<string, JWK>
  readonly #now: () => Date

  constructor(options: { keys: readonly JWK[]; now: () => Date }) {
    this.#keys = new Map(options.keys.map((key) => [adminKeyId(key), publicPart(key)]))
    this.#now = options.now
  }

  /**
   * The id of the key that signed the request's bearer token.
   *
   * @throws UnverifiedError ERR_ADMIN_AUTH; it does not say which check failed
   */
  async authenticate(authorization: string | undefined): Promise<string> {
    const token = /^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/.exec(authorization ?? '')?.[1]
    if (token !== undefined && token.length <= 4_096) {
      for (const [id, jwk] of this.#keys) {
        if (await this.#verifies(token, jwk)) return id
      }
    }
    throw new UnverifiedError('ERR_ADMIN_AUTH', 'this needs a current token signed by an administrator key', {
      hint: 'Use the key that the verifier was started with, and check the clock of this machine.',
    })
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
