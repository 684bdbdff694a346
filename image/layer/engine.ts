/**
 * What the pull needs from native code, as interfaces, so that the pull itself names no engine;
 * `image/node/native-engine.ts` implements them on the addon `shared`.
 */
import type { Digest } from '#protocol/oci/digest'
import type { Compression } from '#protocol/oci/media-types'

/** A dm-verity tree (hash type 1, SHA-256, no superblock) that stands behind the data it covers, in the same file. */
export interface LayerVerity {
  /** 512: the blocks of a tar index are that small, and the kernel takes no larger verity blocks beneath them. */
  readonly dataBlockSize: 512
  readonly hashBlockSize: 4096
  readonly dataBlocks: number
  /** Bytes, a multiple of 4096. */
  readonly hashOffset: number
  /** 64 hexadecimal digits. */
  readonly rootHash: string
  /** Hexadecimal. */
  readonly salt: string
}

export interface FinishedLayer {
  readonly compressedDigest: Digest
  readonly diffId: Digest
  readonly tarBytes: number
  readonly verity: LayerVerity
}

/** One layer on its way. After any error the file is incomplete and only good for removal. */
export interface LayerWriter {
  /**
   * Takes compressed bytes, which must not change until the promise settles; one call at a time. Answers with the tar
   * bytes so far. Errors: see `layerFailure`.
   */
  write(bytes: Uint8Array): Promise<number>
  finish(): Promise<FinishedLayer>
  /** Makes a running call fail soon. */
  cancel(): void
}

export interface OpenLayerOptions {
  /** Where the tar goes; nothing may be there. */
  readonly path: string
  readonly compression: Compression
  /** Hexadecimal. */
  readonly salt: string
  readonly maxTarBytes: number
  readonly maxRatio: number
  /** For messages: "layer 2 (sha256:…)". */
  readonly what: string
}

export interface LayerEngine {
  openLayer(options: OpenLayerOptions): LayerWriter
  /** Appends a tree to an existing file. @param salt hexadecimal */
  appendVerity(path: string, salt: string, what: string): Promise<LayerVerity>
}
