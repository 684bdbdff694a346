/**
 * Mounted images, shared by all containers of them, over tars that images share. Tars and index each lie under dm-verity
 * whose root hash is in this guest's memory alone, so nothing on the disk can vouch for itself.
 */
import type { SealedFile, StoredLayer } from '#image/layer/store'
import type { PulledImage } from '#image/pull/pull-image'
import type { Platform } from '../platform/platform.ts'

export interface MountedImage {
  readonly path: string
  /** When the last one lets go, the image is unmounted. */
  release(): Promise<void>
}

export type MountableImage = Pick<PulledImage, 'layers' | 'index'>

export class ImageMounts {
  readonly #platform: Pick<Platform, 'storage' | 'files'>
  readonly #dir: string
  readonly #images = new Shared()
  readonly #tars = new Shared()
  #sequence = 0

  /** @param dir where the mount points go */
  constructor(platform: Pick<Platform, 'storage' | 'files'>, dir: string) {
    this.#platform = platform
    this.#dir = dir
  }

  async acquire(image: MountableImage): Promise<MountedImage> {
    const { value: path, release } = await this.#images.acquire(image.index.chainId, (undo) => this.#mount(image, undo))
    return { path, release }
  }

  async #mount({ layers, index }: MountableImage, undo: AsyncDisposableStack): Promise<string> {
    const { storage, files } = this.#platform
    const number = this.#sequence++
    const devices: string[] = []
    for (const position of index.devices) {
      const layer = layers[position]
      if (layer !== undefined) devices.push(await this.#tar(layer, undo))
    }
    const device = await this.#protect(`image${number}`, index, undo)
    const path = `${this.#dir}/${number}`
    await files.mkdir(path, 0o711)
    undo.defer(() => files.remove(path))
    // nodev and nosuid here reach through overlayfs to nothing, but nothing else should use an image either.
    const flags = ['ro', 'nodev', 'nosuid'] as const
    const data = devices.map((tar) => `device=${tar}`).join(',')
    await storage.mount({ source: device, target: path, type: 'erofs', flags, data })
    undo.defer(() => storage.unmount(path))
    return path
  }

  async #tar(layer: StoredLayer, undo: AsyncDisposableStack): Promise<string> {
    const { value, release } = await this.#tars.acquire(layer.diffId, (own) =>
      // Short: all devices of an image share one page of mount options.
      this.#protect(`l${this.#sequence++}`, layer.tar, own),
    )
    undo.defer(release)
    return value
  }

  async #protect(name: string, part: SealedFile, undo: AsyncDisposableStack): Promise<string> {
    const { storage } = this.#platform
    const loop = await storage.attachLoop(part.path, { readOnly: true })
    undo.defer(() => storage.detachLoop(loop))
    const device = await storage.openVerity(name, { data: loop, hash: loop, ...part.verity })
    undo.defer(() => storage.closeMapped(name))
    return device
  }
}

interface Entry {
  users: number
  readonly made: Promise<{ readonly value: string; readonly undo: AsyncDisposableStack }>
}

/** Things by key that are made for the first user and undone after the last. */
class Shared {
  readonly #entries = new Map<string, Entry>()

  async acquire(
    key: string,
    make: (undo: AsyncDisposableStack) => Promise<string>,
  ): Promise<{ value: string; release: () => Promise<void> }> {
    const entry = this.#entries.get(key) ?? { users: 0, made: this.#make(make) }
    this.#entries.set(key, entry)
    entry.users++
    const release = async () => {
      entry.users--
      if (entry.users > 0) return
      if (this.#entries.get(key) === entry) this.#entries.delete(key)
      const made = await entry.made.catch(() => undefined)
      await made?.undo.disposeAsync()
    }
    try {
      const { value } = await entry.made
      return { value, release }
    } catch (error) {
      await release()
      throw error
    }
  }

  async #make(
    make: (undo: AsyncDisposableStack) => Promise<string>,
  ): Promise<{ value: string; undo: AsyncDisposableStack }> {
    await using undo = new AsyncDisposableStack()
    const value = await make(undo)
    return { value, undo: undo.move() }
  }
}
