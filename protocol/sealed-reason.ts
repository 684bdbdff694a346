/**
 * The reason of a refusal on its way from the guest to the tenant, past the host: compact JWE (RFC 7516) to the tenant
 * key. Every plaintext has the same length, so that the length of the sealed bytes says nothing.
 *
 * Whoever has the public key, and the host has it, can seal something: a sealed reason is secret, not signed.
 */
import { CompactEncrypt, calculateJwkThumbprint, compactDecrypt, decodeProtectedHeader, importJWK } from 'jose'
import { MalformedError, UnverifiedError } from './errors.ts'
import { JsonFields } from './json-fields.ts'
import { type RefusalReason, readReasonMembers, reasonMembers } from './refusal-reason.ts'
import { TENANT_KEY_ALGORITHM, type TenantIdentity, type TenantKey } from './tenant-key.ts'

export interface ExplainedReason extends RefusalReason {
  /** ISO 8601, the guest's clock. */
  readonly at: string
}

/** Bytes of every plaintext; texts that do not fit are cut. */
export const REASON_BYTES = 4096
/** Bytes of a sealed reason at most: base64url of the above, header, keys and tag. */
export const MAX_SEALED_REASON_BYTES: number = 8 * 1024

const ENCRYPTION = 'A256GCM'
const TYPE = 'caisson-reason'

/** Sealed bytes, all of one length. */
export async function sealReason(key: TenantKey, reason: ExplainedReason): Promise<Uint8Array> {
  const { kty, crv, alg, x, y } = key
  const jwk = { kty, crv, alg, x, y }
  const kid = await calculateJwkThumbprint(jwk)
  const jwe = await new CompactEncrypt(padded(reason))
    .setProtectedHeader({ alg: TENANT_KEY_ALGORITHM, enc: ENCRYPTION, typ: TYPE, kid })
    .encrypt(await importJWK(jwk, TENANT_KEY_ALGORITHM))
  return new TextEncoder().encode(jwe)
}

/**
 * @throws MalformedError ERR_SEALED_REASON when these are no sealed reason
 * @throws UnverifiedError ERR_SEALED_REASON_KEY when it was sealed to another key, or changed on the way
 */
export async function openSealedReason(identity: TenantIdentity, sealed: Uint8Array): Promise<ExplainedReason> {
  if (sealed.byteLength > MAX_SEALED_REASON_BYTES) {
    throw malformed(`has ${sealed.byteLength} bytes, at most ${MAX_SEALED_REASON_BYTES}`)
  }
  const jwe = new TextDecoder().decode(sealed).trim()
  const { d: _, ...publicKey } = identity
  const kid = await calculateJwkThumbprint({ ...publicKey })
  let header: ReturnType<typeof decodeProtectedHeader>
  try {
    header = decodeProtectedHeader(jwe)
  } catch (cause) {
    throw malformed('is no JWE', cause)
  }
  if (header.typ !== TYPE || jwe.split('.').length !== 5) throw malformed('is no JWE of this kind')
  if (header.kid !== kid) throw notForKey(`it is for the key ${JSON.stringify(header.kid)}, this is ${kid}`)
  let plaintext: Uint8Array
  try {
    const opened = await compactDecrypt(jwe, await importJWK({ ...identity }, TENANT_KEY_ALGORITHM), {
      // Only what the key is for; the header does not get to choose anything else.
      keyManagementAlgorithms: [TENANT_KEY_ALGORITHM],
      contentEncryptionAlgorithms: [ENCRYPTION],
    })
    plaintext = opened.plaintext
  } catch (cause) {
    throw notForKey('it does not open', cause)
  }
  return read(new TextDecoder().decode(plaintext))
}

function padded(reason: ExplainedReason): Uint8Array {
  const bytes = new Uint8Array(REASON_BYTES).fill(0x20)
  for (let limit = REASON_BYTES; limit >= 1; limit >>= 1) {
    const text = new TextEncoder().encode(JSON.stringify(cut(reason, limit)))
    if (text.byteLength > REASON_BYTES) continue
    bytes.set(text)
    break
  }
  return bytes
}

/** Each text to at most `limit` UTF-16 units; what is cut ends with an ellipsis. */
function cut({ at, ...reason }: ExplainedReason, limit: number): ExplainedReason {
  // Well-formed: the host's words may hold half a character, and so may a cut.
  const short = (text: string): string => (text.length <= limit ? text : `${text.slice(0, limit - 1)}…`).toWellFormed()
  return { correlationId: short(reason.correlationId), at, ...reasonMembers(reason, short) }
}

function read(text: string): ExplainedReason {
  const fields = JsonFields.parse(text, 'reason', { code: 'ERR_SEALED_REASON', maxChars: REASON_BYTES })
  return {
    correlationId: fields.string('correlationId', REASON_BYTES),
    at: fields.string('at', REASON_BYTES),
    ...readReasonMembers(fields, REASON_BYTES),
  }
}

function malformed(problem: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_SEALED_REASON', `sealed reason ${problem}`, {
    hint: 'Give a file that `caisson run` wrote to its folder `reasons`.',
    ...(cause === undefined ? {} : { cause }),
  })
}

function notForKey(problem: string, cause?: unknown): UnverifiedError {
  return new UnverifiedError('ERR_SEALED_REASON_KEY', `the reason cannot be opened with this key: ${problem}`, {
    hint: 'Use the private key whose public half stands in the guest’s initdata.',
    ...(cause === undefined ? {} : { cause }),
  })
}
