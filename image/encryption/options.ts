/**
 * What belongs to an encrypted layer (ocicrypt): public options in the open, private options wrapped for each recipient.
 * Bytes to values; both are JSON written by Go, of which unknown members are ignored.
 */
import { fromBase64, toBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { type Digest, parseDigest } from '#protocol/oci/digest'
import { asObject, asString } from '../json/fields.ts'
import { type JsonValue, parseStrictJson } from '../json/strict-json.ts'

export const CIPHER = 'AES_256_CTR_HMAC_SHA256'
const KEY_BYTES = 32
const HMAC_BYTES = 32
const NONCE_BYTES = 16

export interface PublicOptions {
  /** Of the ciphertext, with the layer's own key. */
  readonly hmac: Uint8Array
  readonly nonce: Uint8Array | undefined
}

export interface PrivateOptions {
  readonly key: Uint8Array
  /** Of the layer before it was encrypted; before it was compressed even, if one step did both. */
  readonly digest: Digest
  readonly nonce: Uint8Array | undefined
}

/** Throws `MalformedError` ERR_LAYER_ENCRYPTION, ERR_JSON, ERR_BASE64 or ERR_IMAGE_DOCUMENT. */
export function parsePublicOptions(bytes: Uint8Array, what: string): PublicOptions {
  const options = asObject(parseStrictJson(bytes, what), what)
  const cipher = asString(options.cipher, `${what}: cipher`)
  if (cipher !== CIPHER) throw malformed(what, `cipher ${JSON.stringify(cipher.slice(0, 100))} is not ${CIPHER}`)
  return {
    hmac: exactly(options.hmac, HMAC_BYTES, `${what}: hmac`),
    nonce: readNonce(options.cipheroptions, what),
  }
}

/** Errors as of `parsePublicOptions`; no message quotes the content. */
export function parsePrivateOptions(bytes: Uint8Array, what: string): PrivateOptions {
  const options = asObject(parseStrictJson(bytes, what), what)
  return {
    key: exactly(options.symkey, KEY_BYTES, `${what}: symkey`),
    digest: parseDigest(options.digest, `${what}: digest`),
    nonce: readNonce(options.cipheroptions, what),
  }
}

/** The one nonce. The open options may repeat that of the wrapped ones, but not replace it: nothing protects them. */
export function nonceOf(open: PublicOptions, wrapped: PrivateOptions, what: string): Uint8Array {
  const nonce = wrapped.nonce ?? open.nonce
  if (nonce === undefined) throw malformed(what, 'it has no nonce')
  if (open.nonce?.some((byte, index) => byte !== nonce[index])) {
    throw malformed(what, 'its open nonce contradicts the wrapped one')
  }
  return nonce
}

export function encodePublicOptions(hmac: Uint8Array): Uint8Array {
  return encode({ cipher: CIPHER, hmac: toBase64(hmac), cipheroptions: {} })
}

export function encodePrivateOptions(options: PrivateOptions & { readonly nonce: Uint8Array }): Uint8Array {
  const { key, digest, nonce } = options
  return encode({ symkey: toBase64(key), digest, cipheroptions: { nonce: toBase64(nonce) } })
}

function encode(value: object): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}

function readNonce(value: JsonValue | undefined, what: string): Uint8Array | undefined {
  if (value === undefined || value === null) return undefined
  const { nonce } = asObject(value, `${what}: cipheroptions`)
  return nonce === undefined ? undefined : exactly(nonce, NONCE_BYTES, `${what}: nonce`)
}

function exactly(value: JsonValue | undefined, length: number, what: string): Uint8Array {
  const bytes = fromBase64(asString(value, what), what)
  if (bytes.length !== length) throw malformed(what, `${bytes.length} bytes, not ${length}`)
  return bytes
}

function malformed(what: string, why: string): MalformedError {
  return new MalformedError('ERR_LAYER_ENCRYPTION', `${what}: ${why}`, {
    hint: 'Encrypt the image again: caisson image encrypt, or skopeo copy --encryption-key.',
  })
}
