/**
 * The annotation packet of Confidential Containers' key provider: a layer's options under AES-256-GCM, with a key that
 * the verifier releases by name (`kbs:///repository/type/tag`).
 */
import { fromBase64, toBase64 } from '#protocol/encoding'
import { MalformedError, UnavailableError, UnverifiedError } from '#protocol/errors'
import { asObject, asString, optionalString } from '../json/fields.ts'
import { parseStrictJson } from '../json/strict-json.ts'
import type { LayerCipher } from './cipher.ts'

export interface KeyPacket {
  /** URI of the key that wraps. */
  readonly keyId: string
  readonly iv: Uint8Array
  /** Ciphertext ‖ tag. */
  readonly wrapped: Uint8Array
}

const KEY_URI = /^kbs:\/\/[^/\s]*(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){3}$/
const IV_BYTES = 12
const KEY_BYTES = 32
const WRAP = 'A256GCM'

/**
 * Throws `MalformedError` ERR_LAYER_KEY_PACKET, ERR_JSON, ERR_BASE64 or ERR_IMAGE_DOCUMENT, and `UnavailableError`
 * ERR_LAYER_KEY_UNSUPPORTED for another provider, or for A256CTR, which would let anybody flip bits of the key.
 */
export function parseKeyPacket(bytes: Uint8Array, what: string): KeyPacket {
  const packet = asObject(parseStrictJson(bytes, what), what)
  const provider = optionalString(packet.provider, `${what}: provider`)
  if (provider !== '' && provider !== 'kbs') throw unsupported(what, `key provider ${JSON.stringify(provider)}`)
  const version = optionalString(packet.version, `${what}: version`)
  if (version !== '' && !/^0\.1\.\d+$/.test(version)) throw unsupported(what, `version ${JSON.stringify(version)}`)
  const wrap = asString(packet.wrap_type, `${what}: wrap_type`)
  if (wrap !== WRAP) throw unsupported(what, `wrap type ${JSON.stringify(wrap.slice(0, 100))}`)
  const keyId = asString(packet.kid, `${what}: kid`)
  if (!KEY_URI.test(keyId))
    throw malformed(what, `kid ${JSON.stringify(keyId.slice(0, 200))} is not kbs:///repo/type/tag`)
  const iv = fromBase64(asString(packet.iv, `${what}: iv`), `${what}: iv`)
  if (iv.length !== IV_BYTES) throw malformed(what, `iv of ${iv.length} bytes, not ${IV_BYTES}`)
  return { keyId, iv, wrapped: fromBase64(asString(packet.wrapped_data, `${what}: wrapped_data`), what) }
}

/** JSON of the private options. Throws `UnverifiedError` ERR_LAYER_KEY when `key` is not the one that wrapped. */
export function openKeyPacket(cipher: LayerCipher, packet: KeyPacket, key: Uint8Array, what: string): Uint8Array {
  if (key.length !== KEY_BYTES) {
    throw new UnverifiedError(
      'ERR_LAYER_KEY',
      `${what}: the key ${packet.keyId} has ${key.length} bytes, not ${KEY_BYTES}`,
      {
        hint: 'Store the 32 bytes that the image was encrypted with under this name.',
      },
    )
  }
  const options = cipher.openGcm(key, packet.iv, packet.wrapped)
  if (options !== undefined) return options
  throw new UnverifiedError('ERR_LAYER_KEY', `${what}: the key ${packet.keyId} does not open it`, {
    hint: 'Store the key that the image was encrypted with under this name, or encrypt it again.',
  })
}

/** @param iv 12 random bytes, never used before with `key` */
export function sealKeyPacket(
  cipher: LayerCipher,
  { keyId, key, iv, options }: { keyId: string; key: Uint8Array; iv: Uint8Array; options: Uint8Array },
): Uint8Array {
  if (!KEY_URI.test(keyId)) throw malformed('key provider', `${JSON.stringify(keyId)} is not kbs:///repo/type/tag`)
  if (key.length !== KEY_BYTES) throw malformed('key provider', `a key of ${key.length} bytes, not ${KEY_BYTES}`)
  const wrapped = cipher.sealGcm(key, iv, options)
  const packet = { kid: keyId, wrapped_data: toBase64(wrapped), iv: toBase64(iv), wrap_type: WRAP }
  return new TextEncoder().encode(JSON.stringify(packet))
}

function unsupported(what: string, thing: string): UnavailableError {
  return new UnavailableError('ERR_LAYER_KEY_UNSUPPORTED', `${what}: ${thing} is not supported`, {
    hint: 'Encrypt with keys of the verifier: provider:attestation-agent with A256GCM.',
  })
}

function malformed(what: string, why: string): MalformedError {
  return new MalformedError('ERR_LAYER_KEY_PACKET', `${what}: ${why}`)
}
