/** Bounds on what a registry may make this side keep or read; every one is stated in the error that it causes. */
export interface ImageLimits {
  readonly maxManifestBytes: number
  readonly maxConfigBytes: number
  /** overlayfs takes more, image builders stop at 127. */
  readonly maxLayers: number
  /** One layer as it is in the registry. */
  readonly maxCompressedLayerBytes: number
  /** One layer as a tar. */
  readonly maxLayerBytes: number
  /** All layers together, as tars. */
  readonly maxImageBytes: number
  /** Tar bytes per compressed byte, judged beyond the first 16 MiB of tar. deflate cannot exceed 1032, zstd can. */
  readonly maxRatio: number
  /** Signature objects of one image, and bytes of one payload. */
  readonly maxSignatures: number
  readonly maxSignatureBytes: number
  /** A sigstore bundle: an attestation in it may list every package of the image. */
  readonly maxBundleBytes: number
}

const MIB = 1024 * 1024
const GIB = 1024 * MIB

export const DEFAULT_LIMITS: ImageLimits = {
  maxManifestBytes: 4 * MIB,
  maxConfigBytes: 4 * MIB,
  maxLayers: 127,
  maxCompressedLayerBytes: 16 * GIB,
  maxLayerBytes: 32 * GIB,
  maxImageBytes: 64 * GIB,
  maxRatio: 1100,
  maxSignatures: 64,
  maxSignatureBytes: 128 * 1024,
  maxBundleBytes: 16 * MIB,
}
