/** The session between challenge and answer, and that of an attested guest: sealed state, read strictly. */
import type { JWTPayload } from 'jose'
import type { JsonObject } from '#protocol/canonical-json'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import type { TeePublicKey } from '#protocol/kbs-messages'
import { type KbsVersion, parseKbsVersion } from '#protocol/kbs-messages'
import { parseTeePublicKey } from '#protocol/tee-public-key'
import type { SessionSealer } from './session-seal.ts'

export interface ChallengeSession {
  readonly id: string
  readonly expiresMs: number
  readonly version: KbsVersion
  readonly tee: string
  readonly nonce: string
  readonly state: JsonObject
}

export interface SessionReply<T> {
  readonly content: T
  /** New value of the session cookie and when it expires. */
  readonly cookie: string
  readonly expiresAt: Date
}

/**
 * @throws UnverifiedError ERR_SESSION_MISSING, ERR_SESSION_INVALID, ERR_SESSION_EXPIRED
 * @throws UnavailableError as the store
 */
export async function openChallengeSession(
  sealer: SessionSealer,
  cookie: string | undefined,
): Promise<ChallengeSession> {
  if (cookie === undefined) {
    throw new UnverifiedError('ERR_SESSION_MISSING', 'the answer came without the session cookie', {
      hint: 'Send back the cookie kbs-session-id that came with the challenge.',
    })
  }
  const fields = new JsonFields(await sealer.open('challenge', cookie), 'session', 'ERR_KBS_MESSAGE')
  return {
    id: fields.string('id', 64),
    expiresMs: fields.integer('expiresMs', 0, Number.MAX_SAFE_INTEGER),
    version: parseKbsVersion(fields.string('version', 32)),
    tee: fields.string('tee', 32),
    nonce: fields.string('nonce', 256),
    state: jsonObject(fields),
  }
}

/** Id of the attestation that the session stands for; undefined when the cookie is no live session of that kind. */
export async function openAttestedSession(sealer: SessionSealer, cookie: string): Promise<string | undefined> {
  try {
    return new JsonFields(await sealer.open('attested', cookie), 'session', 'ERR_KBS_MESSAGE').string('id', 64)
  } catch (error) {
    if (error instanceof UnverifiedError) return undefined
    throw error
  }
}

/** The key that a token binds; parsed again, since a session's claims come from the store. */
export function teeKeyOf(claims: JWTPayload): TeePublicKey {
  const evidence = new JsonFields(claims.submods, 'submods', 'ERR_KBS_MESSAGE')
    .object('cpu0')
    .object('ear.veraison.annotated-evidence')
  return parseTeePublicKey(evidence.object('runtime_data_claims').object('tee-pubkey'))
}

/** Whole texts leave nothing in it, and to make one costs more than to use it. */
const STRICT_UTF8 = new TextDecoder('utf-8', { fatal: true })

export function utf8(bytes: Uint8Array): string {
  try {
    return STRICT_UTF8.decode(bytes)
  } catch (cause) {
    throw new MalformedError('ERR_KBS_MESSAGE', 'the body is not UTF-8', { cause })
  }
}

function jsonObject(fields: JsonFields): JsonObject {
  const value = fields.json('state')
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fields.error('state', 'not an object')
  return Object.fromEntries(Object.entries(value))
}
