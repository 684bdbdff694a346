/**
 * Volumes that the image itself declares (`VOLUME`): writable also where the root is not, with what the image has at that
 * place, and gone with the container. What the policy mounts at such a path takes its place.
 */
import { UnavailableError } from '#protocol/errors'
import type { Platform } from '../platform/platform.ts'
import type { ImageMounts, MountableImage } from './image-mounts.ts'
import type { BindMount } from './oci-spec.ts'
import { OVERLAY_OPTIONS } from './rootfs.ts'

/** The guest makes these itself, whatever an image says of them. */
const OF_THE_GUEST = /^\/(?:proc|sys|dev)(?:\/|$)/

export interface ImageVolumesInput {
  readonly image: MountableImage
  /** Paths as the verified image says them. */
  readonly declared: readonly string[]
  /** Paths at which the policy mounts something. */
  readonly taken: readonly string[]
  /** Directory of the container on the scratch disk; somebody else removes it. */
  readonly writable: string
  /** Directory for mount points; somebody else removes it. */
  readonly bundle: string
}

/** Parents before what lies in them. @throws UnavailableError ERR_VOLUME_PATH for a path that is not below the root */
export async function mountImageVolumes(
  platform: Pick<Platform, 'storage' | 'files'>,
  mounts: ImageMounts,
  input: ImageVolumesInput,
  undo: AsyncDisposableStack,
): Promise<readonly BindMount[]> {
  const { storage, files } = platform
  const { image, declared, taken, writable, bundle } = input
  const paths = declared.filter((path) => !taken.includes(path) && !OF_THE_GUEST.test(path)).toSorted()
  if (paths.length === 0) return []
  const mounted = await mounts.acquire(image)
  undo.defer(() => mounted.release())
  const binds: BindMount[] = []
  for (const [index, destination] of paths.entries()) {
    const own = `${writable}/volume-${index}`
    const content = await contentOf(destination, `${bundle}/content-${index}`)
    if (content === undefined) {
      await files.mkdir(own, 0o755)
      binds.push({ source: own, destination, readOnly: false })
      continue
    }
    for (const folder of ['upper', 'work']) await files.mkdir(`${own}/${folder}`, 0o755)
    await files.copyAttributes(content, `${own}/upper`)
    const target = `${bundle}/image-volume-${index}`
    await files.mkdir(target, 0o755)
    const data = `lowerdir=${content},upperdir=${own}/upper,workdir=${own}/work,${OVERLAY_OPTIONS}`
    await storage.mount({ source: 'overlay', target, type: 'overlay', flags: ['nodev', 'nosuid'], data })
    undo.defer(() => storage.unmount(target))
    binds.push({ source: target, destination, readOnly: false })
  }
  return binds

  /** What the image has there; links lead nowhere out of it. Undefined: nothing. */
  async function contentOf(path: string, target: string): Promise<string | undefined> {
    try {
      await storage.bindInRoot({ root: mounted.path, path: path.slice(1), target, make: undefined })
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
    undo.defer(() => storage.unmount(target))
    return target
  }
}

function isMissing(error: unknown): boolean {
  if (!(error instanceof UnavailableError) || error.code !== 'ERR_VOLUME_PATH') return false
  return error.cause instanceof Error && 'errno' in error.cause && error.cause.errno === 'ENOENT'
}
