/** From an encrypted layer's annotations to its key: each wrapped key is tried with whoever knows its scheme. */
import { CaissonError, errorText, UnavailableError } from '#protocol/errors'
import type { LayerEncryption, WrappedKey } from './annotations.ts'
import type { LayerCipher } from './cipher.ts'
import type { LayerSecret } from './layer-stream.ts'
import { nonceOf, parsePrivateOptions } from './options.ts'
import { openKeyPacket, parseKeyPacket } from './packet.ts'

/**
 * JSON of the private options, which whoever asked wipes, or undefined for a scheme or a recipient that is not this
 * one's.
 */
export type KeyUnwrapper = (wrapped: WrappedKey, what: string) => Promise<Uint8Array | undefined>

/**
 * Throws `UnavailableError` ERR_LAYER_KEY_NONE when nobody can open any of its keys, with the reasons; what opening
 * threw, when all that could be tried failed the same way; `MalformedError` for options out of form.
 */
export async function unwrapLayerKey(
  encryption: LayerEncryption,
  unwrappers: readonly KeyUnwrapper[],
  what: string,
): Promise<LayerSecret> {
  const failures: unknown[] = []
  for (const wrapped of encryption.keys) {
    for (const unwrap of unwrappers) {
      try {
        const options = await unwrap(wrapped, what)
        if (options === undefined) continue
        try {
          return secretOf(encryption, options, what)
        } finally {
          options.fill(0)
        }
      } catch (error) {
        failures.push(error)
      }
    }
  }
  const [first] = failures
  if (failures.length === 1 && first instanceof CaissonError) throw first
  const schemes = [...new Set(encryption.keys.map(({ scheme }) => scheme))].join(', ')
  const reasons = failures.length === 0 ? 'none of them can be opened here' : failures.map(errorText).join('; ')
  throw new UnavailableError('ERR_LAYER_KEY_NONE', `${what}: encrypted for ${schemes}: ${reasons}`, {
    hint: 'Encrypt the image for this recipient, or store its key at the verifier under the name the image asks for.',
    ...(first === undefined ? {} : { cause: first }),
  })
}

function secretOf(encryption: LayerEncryption, json: Uint8Array, what: string): LayerSecret {
  const options = parsePrivateOptions(json, `options of ${what}`)
  const { hmac } = encryption.options
  // The HMAC does not cover the nonce. One that is not wrapped with the key is vouched for by the digest alone.
  const digest = options.nonce === undefined ? options.digest : undefined
  return { key: options.key, digest, hmac, nonce: nonceOf(encryption.options, options, what) }
}

/**
 * Packets as Confidential Containers writes them, under any provider's name.
 *
 * @param keyOf a key's bytes by its `kbs:///` URI: the verifier gives them after attestation, and to nobody else. They are
 *   wiped when they have been used.
 */
export function packetUnwrapper(cipher: LayerCipher, keyOf: (uri: string) => Promise<Uint8Array>): KeyUnwrapper {
  return async ({ scheme, bytes }, what) => {
    if (!scheme.startsWith('provider.')) return undefined
    const packet = parseKeyPacket(bytes, `wrapped key of ${what}`)
    const key = await keyOf(packet.keyId)
    try {
      return openKeyPacket(cipher, packet, key, what)
    } finally {
      key.fill(0)
    }
  }
}
