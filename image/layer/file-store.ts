/**
 * The guest's store: tars in one folder of its scratch disk, catalogues and indexes in memory, everything known about
 * them in memory. Verity roots never leave the guest's memory, so nothing on the disk can vouch for itself, and after a
 * restart no layer is known.
 */
import { type Digest, digestHex } from '#protocol/oci/digest'
import type { IndexDraft, LayerDraft, LayerStore, StoredIndex, StoredLayer } from './store.ts'

export interface FileLayerStoreOptions {
  /** Exists; no one else writes there. */
  readonly folder: string
  /**
   * For catalogues and indexes; likewise. Default `folder`. They are written first and read or hashed afterwards, so they
   * have to lie where nobody can change them in between: in memory, if `folder` is on a disk of the host's.
   */
  readonly indexFolder?: string
  /** Removing what is not there is no error. */
  readonly remove: (path: string) => Promise<void>
}

export class FileLayerStore implements LayerStore {
  readonly #folder: string
  readonly #indexFolder: string
  readonly #remove: (path: string) => Promise<void>
  readonly #layers = new Map<Digest, StoredLayer>()
  readonly #indexes = new Map<Digest, StoredIndex>()
  readonly #leases = new Set<ReadonlySet<Digest>>()
  #drafts = 0

  constructor(options: FileLayerStoreOptions) {
    this.#folder = options.folder
    this.#indexFolder = options.indexFolder ?? options.folder
    this.#remove = options.remove
  }

  /** @param freeBytes see `LayerStore`; default: it cannot be told */
  lease(freeBytes?: (wanted: number) => Promise<number | undefined>): LayerLease {
    const held = new Set<Digest>()
    this.#leases.add(held)
    return new LayerLease(this, held, { freeBytes, release: () => void this.#leases.delete(held) })
  }

  /** Removes the layers and indexes that no lease holds. */
  async collect(): Promise<void> {
    const idle = (digest: Digest) => [...this.#leases].every((held) => !held.has(digest))
    const layers = [...this.#layers.values()].filter(({ diffId }) => idle(diffId))
    const indexes = [...this.#indexes.values()].filter(({ chainId }) => idle(chainId))
    // Forgotten before they go, so that nobody finds what is being removed.
    for (const { diffId } of layers) this.#layers.delete(diffId)
    for (const { chainId } of indexes) this.#indexes.delete(chainId)
    await this.#discard(
      ...layers.flatMap(({ tar, cataloguePath }) => [tar.path, cataloguePath]),
      ...indexes.map(({ path }) => path),
    )
  }

  find(diffId: Digest): Promise<StoredLayer | undefined> {
    return Promise.resolve(this.#layers.get(diffId))
  }

  begin(diffId: Digest): Promise<LayerDraft> {
    const name = this.#nextName(diffId)
    const tarPath = `${this.#folder}/${name}.tar`
    const cataloguePath = `${this.#indexFolder}/${name}.entries`
    const discard = () => this.#discard(tarPath, cataloguePath)
    return Promise.resolve({
      tarPath,
      cataloguePath,
      commit: async ({ tarBytes, tarVerity }) => {
        const other = this.#layers.get(diffId)
        if (other !== undefined) {
          await discard()
          return other
        }
        const layer: StoredLayer = { diffId, tarBytes, tar: { path: tarPath, verity: tarVerity }, cataloguePath }
        this.#layers.set(diffId, layer)
        return layer
      },
      discard,
    })
  }

  findIndex(chainId: Digest): Promise<StoredIndex | undefined> {
    return Promise.resolve(this.#indexes.get(chainId))
  }

  beginIndex(chainId: Digest): Promise<IndexDraft> {
    const indexPath = `${this.#indexFolder}/${this.#nextName(chainId)}.erofs`
    const discard = () => this.#discard(indexPath)
    return Promise.resolve({
      indexPath,
      commit: async ({ verity, devices }) => {
        const other = this.#indexes.get(chainId)
        if (other !== undefined) {
          await discard()
          return other
        }
        const index: StoredIndex = { chainId, path: indexPath, verity, devices }
        this.#indexes.set(chainId, index)
        return index
      },
      discard,
    })
  }

  /** Numbered: a failed attempt whose files could not be removed must not block the next. */
  #nextName(digest: Digest): string {
    return `${digestHex(digest)}-${++this.#drafts}`
  }

  async #discard(...paths: readonly string[]): Promise<void> {
    await Promise.allSettled(paths.map((path) => this.#remove(path)))
  }
}

/** The store as one image uses it: what it asked for is not collected before the lease ends. */
export class LayerLease implements LayerStore {
  readonly #store: FileLayerStore
  readonly #held: Set<Digest>
  readonly #release: () => void
  readonly freeBytes: (wanted: number) => Promise<number | undefined>

  constructor(
    store: FileLayerStore,
    held: Set<Digest>,
    options: { freeBytes: ((wanted: number) => Promise<number | undefined>) | undefined; release: () => void },
  ) {
    this.#store = store
    this.#held = held
    this.#release = options.release
    this.freeBytes = options.freeBytes ?? (() => Promise.resolve(undefined))
  }

  find(diffId: Digest): Promise<StoredLayer | undefined> {
    this.#held.add(diffId)
    return this.#store.find(diffId)
  }

  begin(diffId: Digest): Promise<LayerDraft> {
    this.#held.add(diffId)
    return this.#store.begin(diffId)
  }

  findIndex(chainId: Digest): Promise<StoredIndex | undefined> {
    this.#held.add(chainId)
    return this.#store.findIndex(chainId)
  }

  beginIndex(chainId: Digest): Promise<IndexDraft> {
    this.#held.add(chainId)
    return this.#store.beginIndex(chainId)
  }

  release(): void {
    this.#release()
  }
}
