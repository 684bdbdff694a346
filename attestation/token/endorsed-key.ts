/**
 * A token's key that comes with certificates (`x5c`, RFC 7517 section 4.7), as verifiers of others send it in the header of
 * their tokens: believed only when the first certificate is of this very key and leads to a root that the caller trusts.
 */
import { createPublicKey } from 'node:crypto'
import type { JWK } from 'jose'
import { equalBytes, fromBase64 } from '#protocol/encoding'
import { CaissonError, UnverifiedError } from '#protocol/errors'
import { type ParsedCertificate, parseCertificate } from '../x509/certificate.ts'
import { verifyPath } from '../x509/path.ts'

const MAX_CHAIN = 8
const MAX_CERTIFICATE_CHARS = 32 * 1024

export interface EndorsedKeyInput {
  readonly jwk: JWK
  /** Roots, or the certificate of the key itself. */
  readonly anchors: readonly ParsedCertificate[]
  readonly at: Date
}

/** Throws `UnverifiedError` ERR_TOKEN_KEY_UNENDORSED, `MalformedError` ERR_BASE64, ERR_CERTIFICATE or ERR_DER. */
export function verifyEndorsedKey({ jwk, anchors, at }: EndorsedKeyInput): void {
  const chain = (jwk.x5c ?? []).slice(0, MAX_CHAIN + 1)
  const long = chain.some((each) => typeof each !== 'string' || each.length > MAX_CERTIFICATE_CHARS)
  const [leaf, ...rest] = long ? [] : chain.map((each) => parseCertificate(fromBase64(each, 'x5c')))
  if (leaf === undefined || chain.length > MAX_CHAIN) throw refused('it comes without certificates that can be read')
  if (!equalBytes(publicKeyInfo(jwk), leaf.publicKeyInfo)) throw refused('its certificate is of another key')
  const [problem] = verifyPath({ leaf, candidates: rest, anchors, at }).problems
  if (problem !== undefined) throw refused(problem.message)
}

function publicKeyInfo(jwk: JWK): Uint8Array {
  try {
    return createPublicKey({ key: { ...jwk }, format: 'jwk' }).export({ format: 'der', type: 'spki' })
  } catch (cause) {
    if (cause instanceof CaissonError) throw cause
    throw refused('it is no public key', cause)
  }
}

function refused(why: string, cause?: unknown): UnverifiedError {
  return new UnverifiedError('ERR_TOKEN_KEY_UNENDORSED', `the token’s key is not endorsed: ${why}`, {
    hint: 'Trust the root of the verifier that signs the tokens, if you know who runs it.',
    ...(cause === undefined ? {} : { cause }),
  })
}
