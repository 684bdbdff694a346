/**
 * A store that outlives its process: per layer `<diff id>.tar`, `<diff id>.erofs` and `<diff id>.json` with the verity
 * roots, in a folder that its owner trusts. The JSON is written last, so a layer without one does not exist; files under
 * temporary names are left-overs of a killed process.
 */
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MalformedError } from '#protocol/errors'
import { type Digest, digestHex } from '#protocol/oci/digest'
import { asObject, asString } from '../json/fields.ts'
import { type JsonValue, parseStrictJson } from '../json/strict-json.ts'
import type { LayerVerity } from '../layer/engine.ts'
import type { LayerDraft, LayerStore, StoredLayer } from '../layer/store.ts'

export class FolderStore implements LayerStore {
  readonly #folder: string
  #drafts = 0

  /** @param folder exists, and is written by its owner alone */
  constructor(folder: string) {
    this.#folder = folder
  }

  async find(diffId: Digest): Promise<StoredLayer | undefined> {
    const { tar, index, record } = this.#names(diffId)
    const text = await readFile(record).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    if (text === undefined) return undefined
    const value = asObject(parseStrictJson(text, record), record)
    return {
      diffId,
      tarBytes: asCount(value.tarBytes, `${record}: tarBytes`),
      tar: { path: tar, verity: parseVerity(value.tarVerity, `${record}: tarVerity`) },
      index: { path: index, verity: parseVerity(value.indexVerity, `${record}: indexVerity`) },
    }
  }

  begin(diffId: Digest): Promise<LayerDraft> {
    const final = this.#names(diffId)
    const base = join(this.#folder, `.partial-${digestHex(diffId)}-${process.pid}-${++this.#drafts}`)
    const draft = { tar: `${base}.tar`, index: `${base}.erofs`, record: `${base}.json` }
    const discard = async (): Promise<void> => {
      await Promise.allSettled(Object.values(draft).map((path) => rm(path, { force: true })))
    }
    return Promise.resolve({
      tarPath: draft.tar,
      indexPath: draft.index,
      commit: async ({ tarBytes, tarVerity, indexVerity }) => {
        await writeFile(draft.record, JSON.stringify({ tarBytes, tarVerity, indexVerity }))
        // Equal diff ids have equal files: replacing those of another process changes nothing.
        await rename(draft.tar, final.tar)
        await rename(draft.index, final.index)
        await rename(draft.record, final.record)
        return {
          diffId,
          tarBytes,
          tar: { path: final.tar, verity: tarVerity },
          index: { path: final.index, verity: indexVerity },
        }
      },
      discard,
    })
  }

  #names(diffId: Digest): { tar: string; index: string; record: string } {
    const base = join(this.#folder, digestHex(diffId))
    return { tar: `${base}.tar`, index: `${base}.erofs`, record: `${base}.json` }
  }
}

function parseVerity(value: JsonValue | undefined, place: string): LayerVerity {
  const verity = asObject(value, place)
  if (verity.dataBlockSize !== 512 || verity.hashBlockSize !== 4096) {
    throw new MalformedError('ERR_IMAGE_DOCUMENT', `${place}: block sizes are not 512 and 4096`)
  }
  return {
    dataBlockSize: 512,
    hashBlockSize: 4096,
    dataBlocks: asCount(verity.dataBlocks, `${place}.dataBlocks`),
    hashOffset: asCount(verity.hashOffset, `${place}.hashOffset`),
    rootHash: asHex(verity.rootHash, `${place}.rootHash`),
    salt: asHex(verity.salt, `${place}.salt`),
  }
}

function asCount(value: JsonValue | undefined, place: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new MalformedError('ERR_IMAGE_DOCUMENT', `${place}: must be a non-negative integer`)
  }
  return value
}

function asHex(value: JsonValue | undefined, place: string): string {
  const text = asString(value, place)
  if (!/^[0-9a-f]{64}$/.test(text)) throw new MalformedError('ERR_IMAGE_DOCUMENT', `${place}: must be 64 hex digits`)
  return text
}
