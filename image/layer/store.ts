/** Where layers are kept. A layer is found only after it was committed, and it is committed only when it is verified. */
import type { Digest } from '#protocol/oci/digest'
import type { LayerVerity } from './engine.ts'

/** Data and hash tree in one file each. */
export interface StoredLayer {
  readonly diffId: Digest
  readonly tarBytes: number
  readonly tar: { readonly path: string; readonly verity: LayerVerity }
  /** The EROFS index, whose extra device is the tar. */
  readonly index: { readonly path: string; readonly verity: LayerVerity }
}

/** Paths of a layer in the making; nothing exists there yet. Exactly one of `commit` and `discard` ends it. */
export interface LayerDraft {
  readonly tarPath: string
  readonly indexPath: string
  commit(layer: {
    readonly diffId: Digest
    readonly tarBytes: number
    readonly tarVerity: LayerVerity
    readonly indexVerity: LayerVerity
  }): Promise<StoredLayer>
  /** Removes what exists. Never throws. */
  discard(): Promise<void>
}

export interface LayerStore {
  find(diffId: Digest): Promise<StoredLayer | undefined>
  begin(diffId: Digest): Promise<LayerDraft>
}
