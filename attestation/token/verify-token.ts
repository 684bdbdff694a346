/**
 * Verifies an attestation token: signature by a published key, issuer, audience, times. What the claims permit is the
 * caller's question.
 *
 * ES256 and nothing else (RFC 8725 section 3.1): the token's own header never chooses the algorithm, and a key that the
 * header carries (`jwk`) is never used.
 */
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTPayload, jwtVerify } from 'jose'
import { MalformedError, UnverifiedError } from '#protocol/errors'

/** Longer texts are refused unread: a token has to fit into an HTTP header. */
export const MAX_TOKEN_CHARACTERS: number = 60 * 1024

export interface VerifyTokenInput {
  readonly token: string
  readonly keys: JSONWebKeySet
  readonly issuer: string
  /** When given, the token must name it. */
  readonly audience?: string
  readonly now: Date
  /** Type of the JWT as its header names it. Default "JWT". */
  readonly type?: 'JWT' | 'time+jwt'
}

/**
 * The claims of a genuine, current token.
 *
 * @throws MalformedError ERR_TOKEN_MALFORMED
 * @throws UnverifiedError ERR_TOKEN_EXPIRED, ERR_TOKEN_UNKNOWN_KEY, ERR_TOKEN_SIGNATURE, ERR_TOKEN_CLAIMS
 */
export async function verifyToken(input: VerifyTokenInput): Promise<JWTPayload> {
  if (input.token.length > MAX_TOKEN_CHARACTERS) {
    throw new MalformedError(
      'ERR_TOKEN_MALFORMED',
      `token has ${input.token.length} characters, at most ${MAX_TOKEN_CHARACTERS} are read`,
    )
  }
  try {
    const { payload } = await jwtVerify(input.token, createLocalJWKSet(input.keys), {
      algorithms: ['ES256'],
      typ: input.type ?? 'JWT',
      issuer: input.issuer,
      currentDate: input.now,
      requiredClaims: ['iat', 'exp', 'iss'],
      ...(input.audience === undefined ? {} : { audience: input.audience }),
    })
    return payload
  } catch (cause) {
    throw translate(cause)
  }
}

function translate(cause: unknown): Error {
  if (cause instanceof errors.JWTExpired) {
    return new UnverifiedError('ERR_TOKEN_EXPIRED', 'the token has expired', { cause, hint: 'Attest again.' })
  }
  if (cause instanceof errors.JWKSNoMatchingKey) {
    return new UnverifiedError('ERR_TOKEN_UNKNOWN_KEY', 'the token was signed by a key this verifier does not have', {
      cause,
    })
  }
  if (cause instanceof errors.JWSSignatureVerificationFailed || cause instanceof errors.JOSEAlgNotAllowed) {
    return new UnverifiedError('ERR_TOKEN_SIGNATURE', "the token's signature does not hold", { cause })
  }
  if (cause instanceof errors.JWTClaimValidationFailed) {
    return new UnverifiedError('ERR_TOKEN_CLAIMS', `the token's ${JSON.stringify(cause.claim)} is not acceptable`, {
      cause,
    })
  }
  return new MalformedError('ERR_TOKEN_MALFORMED', 'not a signed token', { cause })
}
