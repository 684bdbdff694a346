/**
 * Sealed secrets of Confidential Containers (`sealed.<header>.<payload>.<signature>`), read. Behind the prefix stands a
 * JSON Web Signature in compact form (RFC 7515 section 7.1); nothing here says that it holds.
 */
import { fromBase64Url } from './encoding.ts'
import { MalformedError } from './errors.ts'
import { JsonFields } from './json-fields.ts'

/** Points at a secret that a provider keeps. */
export interface VaultSecret {
  readonly type: 'vault'
  readonly provider: string
  /** For provider `kbs`: `kbs:///repository/type/tag`. */
  readonly name: string
}

/** Carries the secret, encrypted to a key that a provider's key service unwraps. */
export interface EnvelopeSecret {
  readonly type: 'envelope'
  readonly provider: string
  readonly keyId: string
  /** Base64 as written. */
  readonly encryptedKey: string
  readonly encryptedData: string
  readonly iv: string
}

export interface SealedSecret {
  /** Which key it says it is signed with. */
  readonly keyId: string
  /** header.payload.signature: what the signature is checked over. */
  readonly jws: string
  readonly content: VaultSecret | EnvelopeSecret
}

export const SEALED_SECRET_PREFIX = 'sealed.'
export const MAX_SEALED_SECRET_CHARS: number = 64 * 1024

const CODE = 'ERR_SEALED_SECRET'
const VERSION = '0.1.0'
const FORM = /^sealed\.([\w-]+)\.([\w-]+)\.([\w-]+)$/
/** P-256: r and s (RFC 7518 section 3.4). */
const ES256_SIGNATURE_BYTES = 64
const MAX_TEXT = 4096

/** Throws `MalformedError` ERR_SEALED_SECRET. */
export function parseSealedSecret(text: string): SealedSecret {
  if (text.length > MAX_SEALED_SECRET_CHARS) {
    throw malformed(`has ${text.length} characters, at most ${MAX_SEALED_SECRET_CHARS}`)
  }
  const [, header, payload, signature] = FORM.exec(text) ?? []
  if (header === undefined || payload === undefined || signature === undefined) {
    throw malformed('is not sealed.<header>.<payload>.<signature> in base64url')
  }
  const signatureBytes = bytesOf(signature, 'signature').byteLength
  if (signatureBytes !== ES256_SIGNATURE_BYTES) {
    throw malformed(`has a signature of ${signatureBytes} bytes, ES256 has ${ES256_SIGNATURE_BYTES}`)
  }
  return {
    keyId: readHeader(fieldsOf(header, 'header')),
    jws: text.slice(SEALED_SECRET_PREFIX.length),
    content: readContent(fieldsOf(payload, 'payload')),
  }
}

/** Members that change how a signature is to be understood (`crit`, `b64`, `jku`, …) are refused with all unknown ones. */
function readHeader(fields: JsonFields): string {
  fields.only(['alg', 'kid', 'typ'])
  fields.oneOf('alg', ['ES256'])
  return fields.string('kid', MAX_TEXT)
}

function readContent(fields: JsonFields): VaultSecret | EnvelopeSecret {
  const common = ['version', 'type', 'provider', 'provider_settings', 'annotations']
  const type = fields.oneOf('type', ['vault', 'envelope'])
  fields.oneOf('version', [VERSION])
  fields.optionalObject('provider_settings')
  fields.optionalObject('annotations')
  const provider = fields.string('provider', 64)
  if (type === 'vault') {
    fields.only([...common, 'name'])
    return { type, provider, name: fields.string('name', MAX_TEXT) }
  }
  fields.only([...common, 'key_id', 'encrypted_key', 'encrypted_data', 'wrap_type', 'iv'])
  fields.oneOf('wrap_type', ['A256GCM'])
  return {
    type,
    provider,
    keyId: fields.string('key_id', MAX_TEXT),
    encryptedKey: fields.string('encrypted_key', MAX_SEALED_SECRET_CHARS),
    encryptedData: fields.string('encrypted_data', MAX_SEALED_SECRET_CHARS),
    iv: fields.string('iv', 256),
  }
}

function fieldsOf(part: string, what: string): JsonFields {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytesOf(part, what))
  } catch (cause) {
    if (cause instanceof MalformedError) throw cause
    throw malformed(`has a ${what} that is not UTF-8`, cause)
  }
  return JsonFields.parse(text, `sealed secret, ${what}`, { code: CODE, maxChars: MAX_SEALED_SECRET_CHARS })
}

function bytesOf(part: string, what: string): Uint8Array {
  try {
    return fromBase64Url(part, what)
  } catch (cause) {
    throw malformed(`has a ${what} that is not base64url`, cause)
  }
}

function malformed(problem: string, cause?: unknown): MalformedError {
  return new MalformedError(CODE, `the sealed secret ${problem}`, {
    hint: 'Seal it again with the `secret` tool of Confidential Containers, signed with an ES256 key.',
    ...(cause === undefined ? {} : { cause }),
  })
}
