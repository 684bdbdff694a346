/** Annotations of an encrypted layer's descriptor (ocicrypt): open options, and wrapped keys by scheme. */
import { fromBase64, toBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import type { Descriptor } from '#protocol/oci/descriptor'
import { type PublicOptions, parsePublicOptions } from './options.ts'

export const ENCRYPTED = '+encrypted'
const PREFIX = 'org.opencontainers.image.enc.'
const PUBLIC_OPTIONS = `${PREFIX}pubopts`
const KEYS = `${PREFIX}keys.`
/** The name that Confidential Containers gives its key provider. */
export const COCO_PROVIDER = 'provider.attestation-agent'
const MAX_ANNOTATION = 256 * 1024
const MAX_WRAPPED_KEYS = 64

export interface WrappedKey {
  /** "jwe", "pkcs7", "pgp", "provider.<name>". */
  readonly scheme: string
  readonly bytes: Uint8Array
}

export interface LayerEncryption {
  /** Of the layer once it is decrypted. */
  readonly mediaType: string
  readonly options: PublicOptions
  readonly keys: readonly WrappedKey[]
}

/** Undefined for a plain layer. Throws `MalformedError` ERR_LAYER_ENCRYPTION, and what its options throw. */
export function parseLayerEncryption(layer: Descriptor, what: string): LayerEncryption | undefined {
  if (!layer.mediaType.endsWith(ENCRYPTED)) return undefined
  const open = layer.annotations.get(PUBLIC_OPTIONS)
  if (open === undefined) throw malformed(what, `no annotation ${PUBLIC_OPTIONS}`)
  const keys: WrappedKey[] = []
  for (const [name, value] of layer.annotations) {
    if (!name.startsWith(KEYS)) continue
    if (value.length > MAX_ANNOTATION) throw malformed(what, `annotation ${name} is longer than ${MAX_ANNOTATION}`)
    for (const item of value.split(',')) keys.push({ scheme: name.slice(KEYS.length), bytes: fromBase64(item, name) })
  }
  if (keys.length === 0) throw malformed(what, 'no wrapped key')
  if (keys.length > MAX_WRAPPED_KEYS) throw malformed(what, `more than ${MAX_WRAPPED_KEYS} wrapped keys`)
  return {
    mediaType: layer.mediaType.slice(0, -ENCRYPTED.length),
    options: parsePublicOptions(fromBase64(open, PUBLIC_OPTIONS), `open options of ${what}`),
    keys,
  }
}

/** @param open JSON of the public options */
export function encryptionAnnotations(open: Uint8Array, keys: readonly WrappedKey[]): Readonly<Record<string, string>> {
  const annotations: Record<string, string> = { [PUBLIC_OPTIONS]: toBase64(open) }
  for (const { scheme, bytes } of keys) {
    const name = `${KEYS}${scheme}`
    const before = annotations[name]
    annotations[name] = before === undefined ? toBase64(bytes) : `${before},${toBase64(bytes)}`
  }
  return annotations
}

/** Without those that are about encryption. */
export function plainAnnotations(annotations: ReadonlyMap<string, string>): Readonly<Record<string, string>> {
  return Object.fromEntries([...annotations].filter(([name]) => !name.startsWith(PREFIX)))
}

function malformed(what: string, why: string): MalformedError {
  return new MalformedError('ERR_LAYER_ENCRYPTION', `${what}: ${why}`, {
    hint: 'Encrypt the image again: caisson image encrypt, or skopeo copy --encryption-key.',
  })
}
