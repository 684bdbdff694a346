/**
 * Rekor's signed entry timestamp as cosign stores it beside a signature: the log's promise that this signature by this
 * key, or certificate, over this payload is in the log, and since when. Checked offline with the log's key.
 */
import { type JsonValue as CanonicalValue, canonicalJsonBytes } from '#protocol/canonical-json'
import type { CryptoProvider } from '#protocol/crypto-provider'
import { equalBytes, fromBase64, fromHex } from '#protocol/encoding'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import { asObject, asString } from '../json/fields.ts'
import { type JsonObject, parseStrictJson } from '../json/strict-json.ts'
import { type SigningKey, verifyWithKey } from './public-key.ts'
import { parsePem } from './x509/pem.ts'

export interface LoggedSignature {
  readonly payload: Uint8Array
  readonly signature: Uint8Array
  /** DER of the public key or certificate that the entry must name. */
  readonly signer: Uint8Array
}

export interface RekorSet {
  readonly signedEntryTimestamp: Uint8Array
  /** As parsed; its canonical form is what the log signed. */
  readonly payload: JsonObject
}

interface LogEntry {
  readonly payloadHash: Uint8Array
  readonly signature: Uint8Array
  readonly signer: Uint8Array
}

/** Text of the annotation to value. Throws `MalformedError` ERR_IMAGE_SIGNATURE_FORMAT, ERR_JSON or ERR_BASE64. */
export function parseRekorSet(text: string, what: string): RekorSet {
  const set = asObject(parseStrictJson(text, what), what)
  const timestamp = asString(set.SignedEntryTimestamp, `${what}: SignedEntryTimestamp`)
  return {
    signedEntryTimestamp: fromBase64(timestamp, `${what}: SignedEntryTimestamp`),
    payload: asObject(set.Payload, `${what}: Payload`),
  }
}

/**
 * When the log took the entry in. Throws `UnverifiedError` ERR_IMAGE_LOG_ENTRY when no key of `logs` made the promise,
 * or it is about another signature.
 */
export function verifyRekorSet(
  set: RekorSet,
  logged: LoggedSignature,
  { logs, crypto, what }: { logs: readonly SigningKey[]; crypto: CryptoProvider; what: string },
): Date {
  const data = canonicalJsonBytes(set.payload as CanonicalValue)
  const signature = set.signedEntryTimestamp
  if (!logs.some((log) => log.scheme === 'ecdsa' && verifyWithKey(crypto, log, { data, signature }))) {
    throw unlogged(what, 'the entry is not signed by a transparency log that the policy names')
  }
  const { body, integratedTime } = set.payload
  if (typeof integratedTime !== 'number' || !Number.isSafeInteger(integratedTime) || integratedTime < 0) {
    throw unlogged(what, 'the entry has no time')
  }
  const entry = parseHashedRekord(fromBase64(asString(body, `${what}: body`), `${what}: body`), what)
  if (!equalBytes(entry.signer, logged.signer)) throw unlogged(what, 'the entry names another key or certificate')
  if (!equalBytes(entry.signature, logged.signature)) throw unlogged(what, 'the entry is about another signature')
  const hash = crypto.createHash('sha256')
  hash.update(logged.payload)
  if (!equalBytes(entry.payloadHash, hash.digest())) throw unlogged(what, 'the entry is about another payload')
  return new Date(integratedTime * 1000)
}

/** A log entry of kind hashedrekord 0.0.1. Throws `MalformedError` ERR_IMAGE_SIGNATURE_FORMAT, ERR_JSON and others. */
export function parseHashedRekord(bytes: Uint8Array, what: string): LogEntry {
  const entry = asObject(parseStrictJson(bytes, what), what)
  if (entry.kind !== 'hashedrekord' || entry.apiVersion !== '0.0.1') throw malformed(what, 'not a hashedrekord 0.0.1')
  const spec = asObject(entry.spec, `${what}: spec`)
  const signature = asObject(spec.signature, `${what}: spec.signature`)
  const publicKey = asObject(signature.publicKey, `${what}: spec.signature.publicKey`)
  const hash = asObject(asObject(spec.data, `${what}: spec.data`).hash, `${what}: spec.data.hash`)
  if (hash.algorithm !== 'sha256') throw malformed(what, 'spec.data.hash is not of sha256')
  const pem = fromBase64(asString(publicKey.content, `${what}: publicKey`), `${what}: publicKey`)
  const [block, ...more] = parsePem(pem, `${what}: publicKey`)
  if (block === undefined || more.length > 0) throw malformed(what, 'spec.signature.publicKey is not one PEM block')
  return {
    payloadHash: fromHex(asString(hash.value, `${what}: hash`), `${what}: hash`),
    signature: fromBase64(asString(signature.content, `${what}: signature`), `${what}: signature`),
    signer: block.der,
  }
}

function unlogged(what: string, why: string): UnverifiedError {
  return new UnverifiedError('ERR_IMAGE_LOG_ENTRY', `${what}: ${why}`, {
    hint: 'Sign the image again with upload to the transparency log whose key the policy names.',
  })
}

function malformed(what: string, why: string): MalformedError {
  return new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${what}: ${why}`)
}
