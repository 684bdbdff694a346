/** Who asks for a resource: the claims of an attested guest, by its session or by a token, and the key that they bind. */
import type { JWTPayload } from 'jose'
import { UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import type { TeePublicKey } from '#protocol/kbs-messages'
import { parseTeePublicKey } from '#protocol/tee-public-key'
import { verifyToken } from '../token/verify-token.ts'
import type { AttestationLog } from './attestation-log.ts'
import type { SessionSealer } from './session-seal.ts'
import type { TokenIssuer } from './token-issuer.ts'

export interface GuestCredentials {
  readonly cookie: string | undefined
  /** The header. */
  readonly authorization: string | undefined
}

export interface AttestedGuestOptions {
  readonly sealer: SessionSealer
  readonly tokens: TokenIssuer
  readonly log: AttestationLog
  readonly issuer: string
  readonly now: () => Date
}

/**
 * Claims of the guest that asks: a live session of an attested guest wins over a bearer token.
 *
 * Throws `UnverifiedError` ERR_TOKEN_MISSING and those of `verifyToken`.
 */
export async function attestedClaims(
  options: AttestedGuestOptions,
  credentials: GuestCredentials,
): Promise<JWTPayload> {
  const bySession = credentials.cookie === undefined ? undefined : sessionClaims(options, credentials.cookie)
  if (bySession !== undefined) return bySession
  const token = /^Bearer (\S+)$/.exec(credentials.authorization ?? '')?.[1]
  if (token === undefined) {
    throw new UnverifiedError('ERR_TOKEN_MISSING', 'neither a session of an attested guest nor a token was sent', {
      hint: 'Attest first.',
    })
  }
  const { tokens, issuer, now } = options
  return await verifyToken({ token, keys: tokens.publishedKeys(), issuer, now: now() })
}

/** The handshake that these claims came from, as far as the log still knows it. */
export function handshakeOf(log: AttestationLog, { jti }: JWTPayload): string | undefined {
  return jti === undefined ? undefined : (log.find(jti)?.handshake ?? jti)
}

/** The key that the token binds; parsed again, since a session's claims come from the store. */
export function teeKeyOf(claims: JWTPayload): TeePublicKey {
  const evidence = new JsonFields(claims.submods, 'submods', 'ERR_KBS_MESSAGE')
    .object('cpu0')
    .object('ear.veraison.annotated-evidence')
  return parseTeePublicKey(evidence.object('runtime_data_claims').object('tee-pubkey'))
}

function sessionClaims({ sealer, log }: AttestedGuestOptions, cookie: string): JWTPayload | undefined {
  let id: string
  try {
    id = new JsonFields(sealer.open('attested', cookie), 'session', 'ERR_KBS_MESSAGE').string('id', 64)
  } catch (error) {
    if (error instanceof UnverifiedError) return undefined
    throw error
  }
  const claims = log.claimsOf(id)
  return typeof claims === 'object' && claims !== null ? { ...claims } : undefined
}
