/** A container's root: its image's layers, joined by overlayfs with an upper directory of its own on the scratch disk. */
import type { StoredLayer } from '#image/layer/store'
import type { Platform } from '../platform/platform.ts'
import type { LayerMounts } from './layer-mounts.ts'

/** What nobody may rely on is off, so a root means the same whatever the kernel's defaults are. */
const OVERLAY_OPTIONS = 'index=off,xino=off,metacopy=off,redirect_dir=off'

export interface RootfsInput {
  /** Base first. */
  readonly layers: readonly StoredLayer[]
  /** On the scratch disk; made and removed here. */
  readonly writable: string
  /** Mount point; made and removed here. */
  readonly target: string
}

/** Mounts at `target`; everything that has to be undone is added to `undo`. */
export async function mountRootfs(
  platform: Pick<Platform, 'storage' | 'files'>,
  mounts: LayerMounts,
  input: RootfsInput,
  undo: AsyncDisposableStack,
): Promise<void> {
  const { storage, files } = platform
  const { writable, target } = input
  const lower: string[] = []
  // The same layer may occur twice in an image; overlayfs takes each directory once, and the upper one decides.
  for (const layer of new Set([...input.layers].reverse())) {
    const mounted = await mounts.acquire(layer)
    undo.defer(() => mounted.release())
    lower.push(mounted.path)
  }
  undo.defer(() => files.remove(writable))
  for (const folder of ['upper', 'work', 'empty']) await files.mkdir(`${writable}/${folder}`, 0o755)
  undo.defer(() => files.remove(target))
  await files.mkdir(target, 0o755)
  const lowerdir = lower.length === 0 ? `${writable}/empty` : lower.join(':')
  const data = `lowerdir=${lowerdir},upperdir=${writable}/upper,workdir=${writable}/work,${OVERLAY_OPTIONS}`
  await storage.mount({ source: 'overlay', target, type: 'overlay', flags: ['nodev'], data })
  undo.defer(() => storage.unmount(target))
}
