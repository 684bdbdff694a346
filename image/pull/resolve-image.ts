/** From a reference to the manifest and the configuration of one platform, each verified by its digest. */
import { MalformedError } from '#protocol/errors'
import type { Digest } from '#protocol/oci/digest'
import { CONFIG_TYPES } from '#protocol/oci/media-types'
import { formatReference, type ImageReference, withDigest } from '#protocol/oci/reference'
import type { ImageLimits } from '../limits.ts'
import { checkPlatform, type ImageConfig, parseImageConfig } from '../manifest/config.ts'
import { type ImageManifest, parseManifest } from '../manifest/manifest.ts'
import { LINUX_AMD64, selectPlatform, type WantedPlatform } from '../manifest/platform.ts'
import type { RegistryClient } from '../registry/client.ts'

/** A manifest that was fetched and verified, with the way that led to it. */
export interface ResolvedImage {
  readonly reference: ImageReference
  readonly manifest: ImageManifest
  readonly manifestBytes: Uint8Array
  readonly manifestDigest: Digest
  readonly indexDigest: Digest | undefined
}

/** Follows at most one index. Errors: those of the registry client and of `parseManifest`, and ERR_IMAGE_PLATFORM. */
export async function resolveImage(
  registry: RegistryClient,
  reference: ImageReference,
  { platform = LINUX_AMD64, signal }: { platform?: WantedPlatform; signal?: AbortSignal | undefined } = {},
): Promise<ResolvedImage> {
  const name = formatReference(reference)
  const top = await registry.fetchManifest(reference, signal)
  const document = parseManifest(top.bytes, name)
  if (document.kind === 'manifest') {
    const { bytes: manifestBytes, digest: manifestDigest } = top
    return { reference, manifest: document, manifestBytes, manifestDigest, indexDigest: undefined }
  }
  const chosen = selectPlatform(document, platform, name)
  const fetched = await registry.fetchManifest(withDigest(reference, chosen.digest), signal)
  const what = `${name}, manifest ${chosen.digest}`
  if (fetched.bytes.byteLength !== chosen.size) {
    throw new MalformedError('ERR_BLOB_SIZE', `${what}: ${fetched.bytes.byteLength} bytes, described as ${chosen.size}`)
  }
  const manifest = parseManifest(fetched.bytes, what, chosen.mediaType)
  if (manifest.kind === 'index') {
    throw new MalformedError('ERR_IMAGE_MEDIA_TYPE', `${what}: an index within an index`)
  }
  const { digest: manifestDigest } = chosen
  return { reference, manifest, manifestBytes: fetched.bytes, manifestDigest, indexDigest: top.digest }
}

/** The configuration a manifest names, verified, for `platform`, with as many diff ids as there are layers. */
export async function fetchImageConfig(
  registry: RegistryClient,
  image: ResolvedImage,
  { platform, limits, signal }: { platform: WantedPlatform; limits: ImageLimits; signal?: AbortSignal | undefined },
): Promise<{ readonly config: ImageConfig; readonly bytes: Uint8Array }> {
  const { manifest, reference } = image
  const what = `configuration ${manifest.config.digest}`
  if (!CONFIG_TYPES.has(manifest.config.mediaType)) {
    throw new MalformedError('ERR_IMAGE_MEDIA_TYPE', `${what}: ${manifest.config.mediaType} is not that of an image`)
  }
  const bytes = await registry.fetchBlob(reference, manifest.config, { maxBytes: limits.maxConfigBytes, what, signal })
  const config = parseImageConfig(bytes, what)
  checkPlatform(config, platform, what)
  if (config.diffIds.length !== manifest.layers.length) {
    throw new MalformedError(
      'ERR_IMAGE_LAYER_COUNT',
      `${what}: ${config.diffIds.length} diff ids for ${manifest.layers.length} layers`,
    )
  }
  return { config, bytes }
}
