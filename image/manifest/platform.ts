/** Chooses the manifest of one platform from an index. */
import { UnavailableError } from '#protocol/errors'
import type { Descriptor, Platform } from '#protocol/oci/descriptor'
import { MANIFEST_TYPES } from '#protocol/oci/media-types'
import type { ImageIndex } from './manifest.ts'

export interface WantedPlatform {
  readonly os: string
  readonly architecture: string
}

export const LINUX_AMD64: WantedPlatform = { os: 'linux', architecture: 'amd64' }

/** The first that fits, as the image-spec asks. Throws `UnavailableError` ERR_IMAGE_PLATFORM, listing what there is. */
export function selectPlatform(index: ImageIndex, wanted: WantedPlatform, what: string): Descriptor {
  const found = index.manifests.find(
    ({ mediaType, platform }) => MANIFEST_TYPES.has(mediaType) && platform !== undefined && fits(platform, wanted),
  )
  if (found === undefined) {
    const offered = index.manifests.map(({ platform }) => (platform === undefined ? 'none' : name(platform)))
    throw new UnavailableError(
      'ERR_IMAGE_PLATFORM',
      `${what}: nothing for ${name(wanted)}; it offers ${JSON.stringify(offered.slice(0, 20).join(', '))}`,
      { hint: `Build and push the image for ${name(wanted)}.` },
    )
  }
  return found
}

/** A variant of amd64 ("v2", "v3") may need instructions that this machine lacks: only the plain one fits. */
function fits(platform: Platform, wanted: WantedPlatform): boolean {
  if (platform.os !== wanted.os || platform.architecture !== wanted.architecture) return false
  return platform.variant === undefined || platform.variant === 'v1' || wanted.architecture !== 'amd64'
}

function name(platform: WantedPlatform): string {
  return `${platform.os}/${platform.architecture}`
}
