/** Who asks: the verified claims of the guest behind a request, from its session or from its token. */
import type { JWTPayload } from 'jose'
import { UnverifiedError } from '#protocol/errors'
import type { AttestationLog } from '../store/attestation-log.ts'
import { verifyToken } from '../token/verify-token.ts'
import { openAttestedSession } from './kbs-session.ts'
import type { SessionSealer } from './session-seal.ts'
import type { TokenIssuer } from './token-issuer.ts'

export interface GuestClaimsOptions {
  readonly sealer: SessionSealer
  readonly tokens: TokenIssuer
  readonly log: AttestationLog
  readonly issuer: string
  readonly now: () => Date
}

export interface GuestCredentials {
  readonly cookie: string | undefined
  readonly authorization: string | undefined
}

export class GuestClaims {
  readonly #options: GuestClaimsOptions

  constructor(options: GuestClaimsOptions) {
    this.#options = options
  }

  /**
   * A live session of an attested guest wins over a bearer token.
   *
   * @throws UnverifiedError ERR_TOKEN_MISSING, and as `verifyToken`
   */
  async find({ cookie, authorization }: GuestCredentials): Promise<JWTPayload> {
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
    const input = { token, issuer, now: now() }
    try {
      return verifyToken({ ...input, keys: await tokens.publishedKeys() })
    } catch (error) {
      if (!(error instanceof UnverifiedError) || error.code !== 'ERR_TOKEN_UNKNOWN_KEY') throw error
      return verifyToken({ ...input, keys: await tokens.publishedKeys({ fresh: true }) })
    }
  }

  /** The handshake in which the guest got its claims, under whose id the tenant finds all records of it. */
  async handshakeOf({ jti }: JWTPayload): Promise<string | undefined> {
    return jti === undefined ? undefined : ((await this.#options.log.handshakeIdOf(jti)) ?? jti)
  }
}
