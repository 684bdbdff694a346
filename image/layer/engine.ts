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
  /** Of the layer as it is in the registry. */
  readonly compressedDigest: Digest
  /** Of the layer before it was encrypted; the same without encryption. */
  readonly plainDigest: Digest
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
  /** Where the catalogue of its entries goes, from which the index is made; likewise. */
  readonly cataloguePath: string
  readonly compression: Compression
  /** Hexadecimal. */
  readonly salt: string
  readonly maxTarBytes: number
  readonly maxRatio: number
  /** For messages: "layer 2 (sha256:…)". */
  readonly what: string
  readonly decryption?: LayerDecryption | undefined
}

/**
 * Encrypted layers (ocicrypt, AES_256_CTR_HMAC_SHA256): the stage between the network and decompression. The bytes are
 * decrypted as they stream by, into files of a draft that nobody else sees; `finish` answers only when the code over the
 * whole ciphertext matches, and throws ERR_LAYER_HMAC otherwise. Until then nothing that was decrypted is visible.
 */
export interface LayerDecryption {
  /** 32 bytes; key of AES and of the code. */
  readonly key: Uint8Array
  /** 16 bytes; the first counter block, big-endian. */
  readonly nonce: Uint8Array
  /** 32 bytes; HMAC-SHA256 over the ciphertext. */
  readonly hmac: Uint8Array
  /** What the layer was before encryption, where the key's packet says so; compared with `FinishedLayer.plainDigest`. */
  readonly plainDigest?: Digest | undefined
}

export interface LayerEngine {
  openLayer(options: OpenLayerOptions): LayerWriter
  /** Appends a tree to an existing file. @param salt hexadecimal */
  appendVerity(path: string, salt: string, what: string): Promise<LayerVerity>
}
