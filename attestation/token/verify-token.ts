/**
 * Verifies an attestation token: signature by a published key, issuer, audience, times. What the claims permit is the
 * caller's question.
 *
 * ES256 and nothing else (RFC 8725 section 3.1): the token's own header never chooses the algorithm, and a key that the
 * header carries (`jwk`) is never used. In place rather than by a library that hands each signature to another thread:
 * guests show a token with every request.
 */
import { createPublicKey, hash, type KeyObject, verify } from 'node:crypto'
import type { JSONWebKeySet, JWTPayload } from 'jose'
import { fromBase64Url } from '#protocol/encoding'
import { CaissonError, MalformedError, UnverifiedError } from '#protocol/errors'
import { derSignature } from '../x509/ecdsa-value.ts'

/** Longer texts are refused unread: a token has to fit into an HTTP header. */
export const MAX_TOKEN_CHARACTERS: number = 60 * 1024

export interface VerifyTokenInput {
  readonly token: string
  /** Read once: a set that changes is another object. */
  readonly keys: JSONWebKeySet
  readonly issuer: string
  /** When given, the token must name it. */
  readonly audience?: string
  readonly now: Date
  /** Type of the JWT as its header names it. Default "JWT". */
  readonly type?: 'JWT' | 'time+jwt'
}

const ALGORITHM = 'ES256'
const SIGNATURE_BYTES = 64

/**
 * The claims of a genuine, current token.
 *
 * @throws MalformedError ERR_TOKEN_MALFORMED
 * @throws UnverifiedError ERR_TOKEN_EXPIRED, ERR_TOKEN_UNKNOWN_KEY, ERR_TOKEN_SIGNATURE, ERR_TOKEN_CLAIMS
 */
export function verifyToken(input: VerifyTokenInput): JWTPayload {
  const { token } = input
  if (token.length > MAX_TOKEN_CHARACTERS) {
    throw malformed(`token has ${token.length} characters, at most ${MAX_TOKEN_CHARACTERS} are read`)
  }
  const [protectedHeader = '', payload = '', signature = '', ...more] = token.split('.')
  if (more.length > 0) throw malformed('not a signed token')
  const header = readJson(protectedHeader)
  if (header.crit !== undefined) throw malformed('the token’s header has extensions') // RFC 7515 section 4.1.11
  if (header.alg !== ALGORITHM) throw notSigned()
  const key = typeof header.kid === 'string' ? keysOf(input.keys).get(header.kid) : undefined
  if (key === undefined) {
    throw new UnverifiedError('ERR_TOKEN_UNKNOWN_KEY', 'the token was signed by a key this verifier does not have')
  }
  if (!isKnown(input.keys, token)) {
    const signed = Buffer.from(`${protectedHeader}.${payload}`, 'latin1')
    const bytes = readBase64Url(signature)
    // RFC 7518 section 3.4: two numbers of fixed length.
    if (bytes.length !== SIGNATURE_BYTES || !verify('sha256', signed, key, derSignature(bytes))) throw notSigned()
    rememberSigned(input.keys, token)
  }
  const claims = readJson(payload)
  checkClaims(header, claims, input)
  return claims
}

function checkClaims(
  header: Members,
  claims: Members,
  { type = 'JWT', issuer, audience, now }: VerifyTokenInput,
): void {
  if (header.typ !== type) throw wrong('typ')
  if (claims.iss !== issuer) throw wrong('iss')
  const { aud, iat, nbf, exp } = claims
  if (audience !== undefined && aud !== audience && !(Array.isArray(aud) && aud.includes(audience))) throw wrong('aud')
  const nowS = Math.floor(now.getTime() / 1000)
  if (!isTime(iat)) throw wrong('iat')
  if (nbf !== undefined && !(isTime(nbf) && nbf <= nowS)) throw wrong('nbf')
  if (!isTime(exp)) throw wrong('exp')
  if (exp <= nowS) throw new UnverifiedError('ERR_TOKEN_EXPIRED', 'the token has expired', { hint: 'Attest again.' })
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

/** Importing a key takes longer than a verification. */
const imported = new WeakMap<JSONWebKeySet, ReadonlyMap<string, KeyObject>>()

/** Keys for ES256 by id. */
function keysOf(set: JSONWebKeySet): ReadonlyMap<string, KeyObject> {
  const known = imported.get(set)
  if (known !== undefined) return known
  const keys = new Map(
    set.keys.flatMap((jwk) => {
      const { kid, kty, crv, x, y, alg = ALGORITHM, use = 'sig' } = jwk
      if (kid === undefined || x === undefined || y === undefined) return []
      if (kty !== 'EC' || crv !== 'P-256' || alg !== ALGORITHM || use !== 'sig') return []
      return [[kid, createPublicKey({ key: { kty, crv, x, y }, format: 'jwk' })] as const]
    }),
  )
  imported.set(set, keys)
  return keys
}

/** Guests show one token several times, soon after it was signed. */
const MAX_KNOWN = 4_096
/** Digests of whole tokens whose signature holds under a key of the set; another set has none of them. */
const known = new WeakMap<JSONWebKeySet, Set<string>>()

function isKnown(keys: JSONWebKeySet, token: string): boolean {
  const tokens = known.get(keys)
  return tokens !== undefined && tokens.size > 0 && tokens.has(digestOf(token))
}

/**
 * Spares the verification of a signature that a key of this set made. All else about the token is judged at each use.
 *
 * @param token verified, or signed a moment ago
 */
export function rememberSigned(keys: JSONWebKeySet, token: string): void {
  const tokens = known.get(keys) ?? new Set<string>()
  known.set(keys, tokens)
  const [oldest] = tokens
  if (tokens.size >= MAX_KNOWN && oldest !== undefined) tokens.delete(oldest)
  tokens.add(digestOf(token))
}

function digestOf(token: string): string {
  return hash('sha256', token, 'base64')
}

const STRICT_UTF8 = new TextDecoder('utf-8', { fatal: true })

type Members = Readonly<Record<string, unknown>>

function readJson(part: string): Members {
  try {
    const value: unknown = JSON.parse(STRICT_UTF8.decode(readBase64Url(part)))
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
  } catch (cause) {
    throw cause instanceof CaissonError ? cause : malformed('not a signed token', cause)
  }
  throw malformed('not a signed token')
}

function readBase64Url(part: string): Uint8Array {
  try {
    return fromBase64Url(part, 'token')
  } catch (cause) {
    throw malformed('not a signed token', cause)
  }
}

function malformed(message: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_TOKEN_MALFORMED', message, cause === undefined ? {} : { cause })
}

function notSigned(): UnverifiedError {
  return new UnverifiedError('ERR_TOKEN_SIGNATURE', "the token's signature does not hold")
}

function wrong(claim: string): UnverifiedError {
  return new UnverifiedError('ERR_TOKEN_CLAIMS', `the token's ${JSON.stringify(claim)} is not acceptable`)
}
