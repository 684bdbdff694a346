/** A container's root: its image, joined by overlayfs with an upper directory of its own on the scratch disk. */
import type { Platform } from '../platform/platform.ts'
import type { ImageMounts, MountableImage } from './image-mounts.ts'

/** What nobody may rely on is off, so a root means the same whatever the kernel's defaults are. */
export const OVERLAY_OPTIONS = 'index=off,xino=off,metacopy=off,redirect_dir=off'

export interface RootfsInput {
  readonly image: MountableImage
  /** On the scratch disk; made and removed here. */
  readonly writable: string
  /** Mount point; made and removed here. */
  readonly target: string
}

/** Mounts at `target`; everything that has to be undone is added to `undo`. */
export async function mountRootfs(
  platform: Pick<Platform, 'storage' | 'files'>,
  mounts: ImageMounts,
  input: RootfsInput,
  undo: AsyncDisposableStack,
): Promise<void> {
  const { storage, files } = platform
  const { writable, target } = input
  const mounted = await mounts.acquire(input.image)
  undo.defer(() => mounted.release())
  undo.defer(() => files.remove(writable))
  for (const folder of ['upper', 'work']) await files.mkdir(`${writable}/${folder}`, 0o755)
  // The directory on top is what a container sees of its root.
  await files.copyAttributes(mounted.path, `${writable}/upper`)
  undo.defer(() => files.remove(target))
  await files.mkdir(target, 0o755)
  const data = `lowerdir=${mounted.path},upperdir=${writable}/upper,workdir=${writable}/work,${OVERLAY_OPTIONS}`
  await storage.mount({ source: 'overlay', target, type: 'overlay', flags: ['nodev'], data })
  undo.defer(() => storage.unmount(target))
}
