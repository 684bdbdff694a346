/** `LayerEngine` on the addon `shared`. */
import { getSystemErrorName } from 'node:util'
import { appendVerity, NativeLayer, type NativeTree, type Outcome } from '#native/shared/index'
import { fromHex, toHex } from '#protocol/encoding'
import type { LayerEngine, LayerVerity, LayerWriter, OpenLayerOptions } from '../layer/engine.ts'
import { layerFailure } from '../layer/failure.ts'

export const nativeEngine: LayerEngine = {
  openLayer: (options) => new NativeLayerWriter(options),

  async appendVerity(path, salt, what) {
    const { outcome, tree } = await appendVerity(path, 512, fromHex(salt, 'salt'))
    check(outcome, { what, compression: 'none', maxTarBytes: 0, maxRatio: 0 })
    return verityOf(tree, salt)
  },
}

class NativeLayerWriter implements LayerWriter {
  readonly #options: OpenLayerOptions
  readonly #layer: NativeLayer

  constructor(options: OpenLayerOptions) {
    this.#options = options
    this.#layer = new NativeLayer({ ...options, catalogue: options.cataloguePath, salt: fromHex(options.salt, 'salt') })
  }

  async write(bytes: Uint8Array): Promise<number> {
    const outcome = await this.#layer.write(bytes)
    check(outcome, this.#options)
    return outcome.tarBytes
  }

  async finish(): ReturnType<LayerWriter['finish']> {
    const { outcome, result } = await this.#layer.finish()
    // Closes its files.
    this.#layer.cancel()
    check(outcome, this.#options)
    return {
      compressedDigest: `sha256:${toHex(result.compressedDigest)}`,
      plainDigest: `sha256:${toHex(result.plainDigest)}`,
      diffId: `sha256:${toHex(result.diffId)}`,
      tarBytes: result.tarBytes,
      verity: verityOf(result, this.#options.salt),
    }
  }

  cancel(): void {
    this.#layer.cancel()
  }
}

type Limits = Pick<OpenLayerOptions, 'what' | 'compression' | 'maxTarBytes' | 'maxRatio' | 'decryption'>

function check({ status, errno, entry }: Outcome, limits: Limits): void {
  if (status === 'ok') return
  // A name that was decrypted and not yet authenticated is nobody's to see.
  const told = entry !== undefined && limits.decryption !== undefined ? { ...entry, name: '' } : entry
  throw layerFailure(status, { ...limits, entry: told, errno: errno === 0 ? 'unknown' : getSystemErrorName(-errno) })
}

function verityOf(tree: NativeTree, salt: string): LayerVerity {
  return {
    dataBlockSize: 512,
    hashBlockSize: 4096,
    dataBlocks: tree.dataBlocks,
    hashOffset: tree.hashOffset,
    rootHash: toHex(tree.rootHash),
    salt,
  }
}
