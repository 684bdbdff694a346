/**
 * Reference values of a release, signed by who made it: a DSSE envelope (in-toto, "Dead Simple Signing Envelope") whose
 * payload lists documents as `caisson measure` prints them. What a tenant registers is then what the release's maker
 * measured, whoever carried the file.
 *
 * Payload, JSON: `{"version": 1, "release": "2.4.0", "reference-values": [{…}, …]}`.
 */
import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { fromBase64, toBase64 } from '#protocol/encoding'
import { CaissonError, MalformedError, UnverifiedError } from '#protocol/errors'
import { JsonFields } from '#protocol/json-fields'
import { parseReferenceDocument } from './reference-document.ts'

export interface ReleaseManifest {
  /** Name of the release. */
  readonly release: string
  /** JSON texts of reference values; each can be registered. */
  readonly documents: readonly string[]
}

export const RELEASE_PAYLOAD = 'application/vnd.caisson.release+json'

const CODE = 'ERR_RELEASE_MANIFEST'
const VERSION = 1
const MAX_NAME_CHARS = 128
const MAX_DOCUMENTS = 256
const MAX_SIGNATURES = 8
const MAX_SIGNATURE_CHARS = 1024
const MAX_CHARS = 16 * 1024 * 1024
const CURVES: ReadonlySet<string> = new Set(['prime256v1', 'secp384r1', 'secp521r1'])
const MIN_RSA_BITS = 2048

/** Throws `MalformedError` ERR_RELEASE_MANIFEST, ERR_REFERENCE_VALUES when it is none that can be registered. */
export function signReleaseManifest({ release, documents }: ReleaseManifest, key: KeyObject): string {
  const payload = Buffer.from(
    JSON.stringify({
      version: VERSION,
      release,
      'reference-values': documents.map((text): unknown => JSON.parse(text)),
    }),
  )
  readPayload(payload)
  const signature = sign(digestOf(key), preAuthenticationEncoding(payload), key)
  const envelope = {
    payloadType: RELEASE_PAYLOAD,
    payload: toBase64(payload),
    signatures: [{ sig: toBase64(signature) }],
  }
  return `${JSON.stringify(envelope)}\n`
}

/**
 * Throws `MalformedError` ERR_RELEASE_MANIFEST, ERR_REFERENCE_VALUES, ERR_BASE64; `UnverifiedError` ERR_RELEASE_SIGNATURE when
 * none of its signatures is of that key.
 */
export function parseReleaseManifest(text: string, key: KeyObject): ReleaseManifest {
  const envelope = JsonFields.parse(text, 'release manifest', { code: CODE, maxChars: MAX_CHARS })
  envelope.only(['payloadType', 'payload', 'signatures'])
  const type = envelope.string('payloadType', 256)
  if (type !== RELEASE_PAYLOAD) throw malformed(`its payload is ${JSON.stringify(type)}, not ${RELEASE_PAYLOAD}`)
  const payload = fromBase64(envelope.string('payload', MAX_CHARS), 'release manifest')
  const signed = preAuthenticationEncoding(payload)
  const signatures = envelope.objects('signatures', MAX_SIGNATURES)
  const holds = signatures.some((each) =>
    verify(digestOf(key), signed, key, fromBase64(each.string('sig', MAX_SIGNATURE_CHARS), 'release manifest')),
  )
  if (!holds) {
    throw new UnverifiedError('ERR_RELEASE_SIGNATURE', 'the release manifest is not signed by this key', {
      hint: 'Get manifest and key from whoever made the release, on different ways.',
    })
  }
  return readPayload(payload) // nothing of it was believed before
}

/** Of a release's maker: Ed25519, ECDSA or RSA, as `caisson image keygen` and `openssl` make them. Throws ERR_RELEASE_KEY. */
export function readReleaseKey(pem: string): KeyObject {
  try {
    const key = createPublicKey(pem)
    digestOf(key)
    return key
  } catch (cause) {
    if (cause instanceof CaissonError) throw cause
    throw keyError(cause)
  }
}

function readPayload(payload: Uint8Array): ReleaseManifest {
  const text = new TextDecoder('utf-8').decode(payload)
  const fields = JsonFields.parse(text, 'release manifest', { code: CODE, maxChars: MAX_CHARS })
  fields.only(['version', 'release', 'reference-values'])
  fields.integer('version', VERSION, VERSION)
  const release = fields.string('release', MAX_NAME_CHARS)
  if (!/^[\w.+-]+$/.test(release)) throw malformed(`${JSON.stringify(release)} is no name of a release`)
  const { 'reference-values': values }: { 'reference-values'?: unknown } = JSON.parse(text)
  if (!Array.isArray(values) || values.length === 0 || values.length > MAX_DOCUMENTS) {
    throw malformed(`it must list 1 to ${MAX_DOCUMENTS} documents of reference values`)
  }
  const documents = values.map((value: unknown) => JSON.stringify(value))
  const ids = documents.map((document) => parseReferenceDocument(document).id)
  if (new Set(ids).size < ids.length) throw malformed('two of its documents have the same name')
  return { release, documents }
}

/** What is signed is the type and the payload, each behind its length. */
function preAuthenticationEncoding(payload: Uint8Array): Uint8Array {
  const head = `DSSEv1 ${RELEASE_PAYLOAD.length} ${RELEASE_PAYLOAD} ${payload.length} `
  return Buffer.concat([Buffer.from(head), payload])
}

function digestOf({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): 'sha256' | null {
  if (type === 'ed25519') return null
  if (type === 'ec' && CURVES.has(details?.namedCurve ?? '')) return 'sha256'
  if (type === 'rsa' && (details?.modulusLength ?? 0) >= MIN_RSA_BITS) return 'sha256'
  throw keyError()
}

function keyError(cause?: unknown): MalformedError {
  return new MalformedError('ERR_RELEASE_KEY', 'not a key that signs releases', {
    hint: 'Use PEM of a key on P-256, P-384 or P-521, of Ed25519, or of RSA with 2048 bits or more.',
    ...(cause === undefined ? {} : { cause }),
  })
}

function malformed(why: string): MalformedError {
  return new MalformedError(CODE, `not a release manifest: ${why}`, {
    hint: 'Make one with `caisson measure release`.',
  })
}
