/** What an image in a registry is, without fetching a layer. */

import type { Digest } from '#protocol/oci/digest'
import { formatReference, type ImageReference, parseReference, withDigest } from '#protocol/oci/reference'
import { DEFAULT_LIMITS } from '../limits.ts'
import type { ImageConfig } from '../manifest/config.ts'
import { LINUX_AMD64 } from '../manifest/platform.ts'
import { fetchImageConfig, resolveImage } from '../pull/resolve-image.ts'
import type { RegistryClient } from '../registry/client.ts'
import { signaturesIn } from '../signature/cosign.ts'

export interface InspectedImage {
  /** Repository and digest of what the reference names. */
  readonly reference: string
  readonly manifestDigest: Digest
  readonly indexDigest: Digest | undefined
  readonly config: ImageConfig
  readonly layers: readonly {
    readonly digest: Digest
    readonly mediaType: string
    readonly size: number
    readonly diffId: Digest | undefined
  }[]
  /** Signatures found beside it, not judged. */
  readonly signatures: number
}

export async function inspectImage(options: {
  reference: string | ImageReference
  registry: RegistryClient
  signal?: AbortSignal
}): Promise<InspectedImage> {
  const { registry, signal } = options
  const reference =
    typeof options.reference === 'string' ? parseReference(options.reference, 'latest') : options.reference
  const image = await resolveImage(registry, reference, { platform: LINUX_AMD64, signal })
  const { config } = await fetchImageConfig(registry, image, { platform: LINUX_AMD64, limits: DEFAULT_LIMITS, signal })
  const top = image.indexDigest ?? image.manifestDigest
  const find = signaturesIn(registry, reference, { limits: DEFAULT_LIMITS, signal })
  const signatures = [...(await find(top, 'cosign')), ...(await find(top, 'bundle'))]
  return {
    reference: formatReference(withDigest(reference, top)),
    manifestDigest: image.manifestDigest,
    indexDigest: image.indexDigest,
    config,
    layers: image.manifest.layers.map(({ digest, mediaType, size }, index) => {
      return { digest, mediaType, size, diffId: config.diffIds[index] }
    }),
    signatures: signatures.length,
  }
}
