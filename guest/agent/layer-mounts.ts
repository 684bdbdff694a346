/**
 * Mounted layers, shared by all containers that have them. Tar and index each lie under dm-verity whose root hash is in
 * this guest's memory alone, so nothing on the disk can vouch for itself.
 */
import type { StoredLayer } from '#image/layer/store'
import type { Platform } from '../platform/platform.ts'

export interface MountedLayer {
  readonly path: string
  /** When the last one lets go, the layer is unmounted. */
  release(): Promise<void>
}

interface Entry {
  users: number
  readonly mounted: Promise<{ readonly path: string; readonly undo: AsyncDisposableStack }>
}

export class LayerMounts {
  readonly #platform: Pick<Platform, 'storage' | 'files'>
  readonly #dir: string
  readonly #entries = new Map<string, Entry>()
  #sequence = 0

  /** @param dir where the mount points go; short, for overlayfs takes one page of options */
  constructor(platform: Pick<Platform, 'storage' | 'files'>, dir: string) {
    this.#platform = platform
    this.#dir = dir
  }

  async acquire(layer: StoredLayer): Promise<MountedLayer> {
    const key = layer.diffId
    const entry = this.#entries.get(key) ?? { users: 0, mounted: this.#mount(layer, this.#sequence++) }
    this.#entries.set(key, entry)
    entry.users++
    const release = async () => {
      entry.users--
      if (entry.users > 0) return
      if (this.#entries.get(key) === entry) this.#entries.delete(key)
      const mounted = await entry.mounted.catch(() => undefined)
      await mounted?.undo.disposeAsync()
    }
    try {
      const { path } = await entry.mounted
      return { path, release }
    } catch (error) {
      await release()
      throw error
    }
  }

  async #mount(layer: StoredLayer, number: number): Promise<{ path: string; undo: AsyncDisposableStack }> {
    const { storage, files } = this.#platform
    await using undo = new AsyncDisposableStack()
    const protect = async (name: string, part: StoredLayer['tar']) => {
      const loop = await storage.attachLoop(part.path, { readOnly: true })
      undo.defer(() => storage.detachLoop(loop))
      const device = await storage.openVerity(name, { data: loop, hash: loop, ...part.verity })
      undo.defer(() => storage.closeMapped(name))
      return device
    }
    const tar = await protect(`layer${number}t`, layer.tar)
    const index = await protect(`layer${number}i`, layer.index)
    const path = `${this.#dir}/${number}`
    await files.mkdir(path, 0o711)
    undo.defer(() => files.remove(path))
    // nodev and nosuid here reach through overlayfs to nothing, but nothing else should use a layer either.
    const flags = ['ro', 'nodev', 'nosuid'] as const
    await storage.mount({ source: index, target: path, type: 'erofs', flags, data: `device=${tar}` })
    undo.defer(() => storage.unmount(path))
    return { path, undo: undo.move() }
  }
}
