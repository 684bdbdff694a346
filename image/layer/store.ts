/**
 * Where layers and indexes are kept. Each is found only after it was committed, and a layer is committed only when it is
 * verified.
 */
import type { Digest } from '#protocol/oci/digest'
import type { LayerVerity } from './engine.ts'

/** Data and hash tree in one file. */
export interface SealedFile {
  readonly path: string
  readonly verity: LayerVerity
}

export interface StoredLayer {
  readonly diffId: Digest
  readonly tarBytes: number
  readonly tar: SealedFile
  /** Its entries, from which indexes are made: some 100 bytes each. */
  readonly cataloguePath: string
}

/** The EROFS index of an image: all its layers applied, contents in their tars. */
export interface StoredIndex extends SealedFile {
  /** Of all layers, image-spec config.md: what the index depends on, and nothing else. */
  readonly chainId: Digest
  /** Positions in the image's layers of those whose tars are its extra devices, in this order. */
  readonly devices: readonly number[]
}

/** Paths of something in the making; nothing exists there yet. Exactly one of `commit` and `discard` ends it. */
export interface LayerDraft {
  readonly tarPath: string
  readonly cataloguePath: string
  commit(layer: { readonly tarBytes: number; readonly tarVerity: LayerVerity }): Promise<StoredLayer>
  /** Removes what exists. Never throws. */
  discard(): Promise<void>
}

export interface IndexDraft {
  readonly indexPath: string
  commit(index: { readonly verity: LayerVerity; readonly devices: readonly number[] }): Promise<StoredIndex>
  /** Removes what exists. Never throws. */
  discard(): Promise<void>
}

/**
 * Bytes of a blob as they came from a registry, for a later pull to go on from. Each piece is kept with its digest, so
 * what a crash or a disk did to it is noticed; whether it is the blob's is known at the end, as ever.
 */
export interface LayerPart {
  /** What is there and whole, in order; ends at the first piece that is not. Read to its end before `append`. */
  read(): AsyncIterable<Uint8Array>
  append(bytes: Uint8Array): Promise<void>
  /** Forgets what is there. */
  restart(): Promise<void>
  /** Keeps what is there. */
  close(): Promise<void>
  remove(): Promise<void>
}

export interface LayerStore {
  find(diffId: Digest): Promise<StoredLayer | undefined>
  begin(diffId: Digest): Promise<LayerDraft>
  findIndex(chainId: Digest): Promise<StoredIndex | undefined>
  beginIndex(chainId: Digest): Promise<IndexDraft>
  /** For stores that outlive their process; undefined for blobs too small to be worth it. */
  beginPart?(digest: Digest, size: number): Promise<LayerPart | undefined>
  /**
   * Room for what a pull adds, bytes, after what nobody uses was dropped if there is less than `wanted`; undefined when it
   * cannot be told.
   */
  freeBytes?(wanted: number): Promise<number | undefined>
}
