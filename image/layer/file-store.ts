/**
 * The guest's store: tars in one folder of its scratch disk, indexes in memory, everything known about them in memory. Verity roots never
 * leave the guest's memory, so nothing on the disk can vouch for itself, and after a restart no layer is known.
 */
import { type Digest, digestHex } from '#protocol/oci/digest'
import type { LayerDraft, LayerStore, StoredLayer } from './store.ts'

export interface FileLayerStoreOptions {
  /** Exists; no one else writes there. */
  readonly folder: string
  /**
   * For indexes; likewise. Default `folder`. An index is written first and hashed afterwards, so it has to lie where
   * nobody can change it in between: in memory, if `folder` is on a disk of the host's.
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
  #drafts = 0

  constructor(options: FileLayerStoreOptions) {
    this.#folder = options.folder
    this.#indexFolder = options.indexFolder ?? options.folder
    this.#remove = options.remove
  }

  find(diffId: Digest): Promise<StoredLayer | undefined> {
    return Promise.resolve(this.#layers.get(diffId))
  }

  begin(diffId: Digest): Promise<LayerDraft> {
    // Numbered: a failed attempt whose files could not be removed must not block the next.
    const name = `${digestHex(diffId)}-${++this.#drafts}`
    const tarPath = `${this.#folder}/${name}.tar`
    const indexPath = `${this.#indexFolder}/${name}.erofs`
    const discard = async (): Promise<void> => {
      await Promise.allSettled([this.#remove(tarPath), this.#remove(indexPath)])
    }
    return Promise.resolve({
      tarPath,
      indexPath,
      commit: async ({ tarBytes, tarVerity, indexVerity }) => {
        const other = this.#layers.get(diffId)
        if (other !== undefined) {
          await discard()
          return other
        }
        const layer: StoredLayer = {
          diffId,
          tarBytes,
          tar: { path: tarPath, verity: tarVerity },
          index: { path: indexPath, verity: indexVerity },
        }
        this.#layers.set(diffId, layer)
        return layer
      },
      discard,
    })
  }
}
