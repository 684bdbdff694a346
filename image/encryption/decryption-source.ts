/** Keys of a pull's encrypted layers: from a descriptor's annotations, by whoever can unwrap one of its keys. */
import type { Descriptor } from '#protocol/oci/descriptor'
import type { LayerDecryption } from '../layer/engine.ts'
import type { DecryptionSource } from '../pull/fetch-layer.ts'
import { parseLayerEncryption } from './annotations.ts'
import { type KeyUnwrapper, unwrapLayerKey } from './unwrap.ts'

/** Errors of the function: those of `parseLayerEncryption` and `unwrapLayerKey`. */
export function decryptionSource(unwrappers: readonly KeyUnwrapper[]): DecryptionSource {
  return async (layer: Descriptor, { what }): Promise<LayerDecryption> => {
    const encryption = parseLayerEncryption(layer, what)
    if (encryption === undefined) throw new TypeError(`${what} is not encrypted`)
    const { key, nonce, hmac, digest } = await unwrapLayerKey(encryption, unwrappers, what)
    return { key, nonce, hmac, plainDigest: digest }
  }
}
