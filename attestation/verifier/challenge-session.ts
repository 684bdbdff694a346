/** The session between challenge and answer: it travels sealed in the guest's cookie, so that any process can go on with it. */
import type { JsonObject } from '#protocol/canonical-json'
import { UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { type KbsVersion, parseKbsVersion } from '#protocol/kbs-messages'
import type { SessionSealer } from './session-seal.ts'

export interface ChallengeSession {
  readonly id: string
  readonly expiresMs: number
  readonly version: KbsVersion
  readonly tee: string
  readonly nonce: string
  readonly state: JsonObject
}

/** Throws `UnverifiedError` ERR_SESSION_MISSING and those of the sealer, `MalformedError` ERR_KBS_MESSAGE. */
export function openChallengeSession(sealer: SessionSealer, cookie: string | undefined): ChallengeSession {
  if (cookie === undefined) {
    throw new UnverifiedError('ERR_SESSION_MISSING', 'the answer came without the session cookie', {
      hint: 'Send back the cookie kbs-session-id that came with the challenge.',
    })
  }
  const fields = new JsonFields(sealer.open('challenge', cookie), 'session', 'ERR_KBS_MESSAGE')
  return {
    id: fields.string('id', 64),
    expiresMs: fields.integer('expiresMs', 0, Number.MAX_SAFE_INTEGER),
    version: parseKbsVersion(fields.string('version', 32)),
    tee: fields.string('tee', 32),
    nonce: fields.string('nonce', 256),
    state: stateOf(fields),
  }
}

function stateOf(fields: JsonFields): JsonObject {
  const value = fields.json('state')
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fields.error('state', 'not an object')
  return Object.fromEntries(Object.entries(value))
}
