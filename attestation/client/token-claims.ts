/**
 * What the guest reads from a token it was just given.
 *
 * The signature is not checked here: TLS has authenticated the verifier, and a key fetched over the same connection
 * would prove no more. What is checked is that the token answers this handshake, by nonce and key.
 */
import { decodeJwt, type JWTPayload } from 'jose'
import type { TeePublicKey } from '#protocol/kbs-messages'
import { answerError } from './verifier-http.ts'

export interface TokenFacts {
  /** When the verifier issued it, by its clock: a time the host has no say in. */
  readonly issuedAt: Date
  readonly expiresAt: Date
  readonly status: string
}

/** @throws MalformedError ERR_VERIFIER_ANSWER */
export function readToken(token: string, expected: { nonce: string; teePublicKey: TeePublicKey }): TokenFacts {
  let claims: JWTPayload
  try {
    claims = decodeJwt(token)
  } catch (cause) {
    throw answerError('a token that cannot be read', cause)
  }
  const { iat, exp } = claims
  if (typeof iat !== 'number' || typeof exp !== 'number' || !(iat > 0 && exp > iat && exp < MAX_JWT_TIME)) {
    throw answerError('a token without a time of issue and expiry')
  }
  const cpu = member(member(claims, 'submods'), 'cpu0')
  const bound = member(member(cpu, 'ear.veraison.annotated-evidence'), 'runtime_data_claims')
  const key = member(bound, 'tee-pubkey')
  const sameKey = Object.entries(expected.teePublicKey).every(([name, value]) => member(key, name) === value)
  if (!sameKey || member(bound, 'nonce') !== expected.nonce) throw answerError('a token for another guest')
  const status = member(cpu, 'ear.status')
  return {
    issuedAt: new Date(iat * 1000),
    expiresAt: new Date(exp * 1000),
    status: typeof status === 'string' ? status : 'none',
  }
}

/** Year 9999, in seconds: later ones have no ISO form. */
const MAX_JWT_TIME = 253_402_300_799

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Object.getOwnPropertyDescriptor(value, name)?.value : undefined
}
