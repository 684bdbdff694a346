/**
 * Indexes tars on the scratch disk through dm-verity. The disk is the host's: its encryption hides what a sector holds,
 * not which of its former contents comes back. Between the pass that verified a tar and the indexer, which reads it
 * again, the root hash of that pass is what says that the bytes are still the same.
 */
import type { LayerIndexer, LayerToIndex } from '#image/layer/indexer'
import type { Platform } from '../platform/platform.ts'

export class VerifiedIndexer implements LayerIndexer {
  readonly #storage: Pick<Platform['storage'], 'attachLoop' | 'detachLoop' | 'openVerity' | 'closeMapped'>
  readonly #indexer: LayerIndexer
  #sequence = 0

  constructor(storage: Platform['storage'], indexer: LayerIndexer) {
    this.#storage = storage
    this.#indexer = indexer
  }

  async index(layer: LayerToIndex): Promise<void> {
    const storage = this.#storage
    await using undo = new AsyncDisposableStack()
    const loop = await storage.attachLoop(layer.tarPath, { readOnly: true })
    undo.defer(() => storage.detachLoop(loop))
    const name = `indexing${this.#sequence++}`
    const tarPath = await storage.openVerity(name, { data: loop, hash: loop, ...layer.tarVerity })
    undo.defer(() => storage.closeMapped(name))
    await this.#indexer.index({ ...layer, tarPath })
  }
}
