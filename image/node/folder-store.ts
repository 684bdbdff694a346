/**
 * A store that outlives its process: per layer `<diff id>.tar`, `<diff id>.entries` and `<diff id>.json` with the verity
 * root, per image `<chain id>.erofs` and its `.json`, in a folder that its owner trusts. The JSON is written last, so what
 * has none does not exist; files under temporary names are left-overs of a killed process.
 */
import { readdir, readFile, rename, rm, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MalformedError } from '#protocol/errors'
import { type Digest, digestHex } from '#protocol/oci/digest'
import { asArray, asObject, asString } from '../json/fields.ts'
import { type JsonObject, type JsonValue, parseStrictJson } from '../json/strict-json.ts'
import type { LayerVerity } from '../layer/engine.ts'
import type { IndexDraft, LayerDraft, LayerPart, LayerStore, StoredIndex, StoredLayer } from '../layer/store.ts'
import { FolderPart } from './folder-part.ts'

/** The superblock has 16 bits for it; images have fewer layers. */
const MAX_DEVICES = 65535

const DRAFT_PREFIX = '.partial-'
/** Blobs that are shorter are fetched again after an interruption. */
const PART_BYTES = 8 * 1024 * 1024

export class FolderStore implements LayerStore {
  readonly #folder: string
  #drafts = 0

  /** @param folder exists, and is written by its owner alone */
  constructor(folder: string) {
    this.#folder = folder
  }

  async find(diffId: Digest): Promise<StoredLayer | undefined> {
    const { tar, entries, record } = this.#names(diffId)
    const value = await readRecord(record)
    if (value === undefined) return undefined
    return {
      diffId,
      tarBytes: asCount(value.tarBytes, `${record}: tarBytes`),
      tar: { path: tar, verity: parseVerity(value.tarVerity, `${record}: tarVerity`) },
      cataloguePath: entries,
    }
  }

  begin(diffId: Digest): Promise<LayerDraft> {
    const final = this.#names(diffId)
    const draft = this.#drafted(diffId)
    return Promise.resolve({
      tarPath: draft.tar,
      cataloguePath: draft.entries,
      commit: async ({ tarBytes, tarVerity }) => {
        await writeFile(draft.record, JSON.stringify({ tarBytes, tarVerity }))
        // Equal diff ids have equal files: replacing those of another process changes nothing.
        await rename(draft.tar, final.tar)
        await rename(draft.entries, final.entries)
        await rename(draft.record, final.record)
        return { diffId, tarBytes, tar: { path: final.tar, verity: tarVerity }, cataloguePath: final.entries }
      },
      discard: () => discard(draft),
    })
  }

  async findIndex(chainId: Digest): Promise<StoredIndex | undefined> {
    const { index, indexRecord: record } = this.#names(chainId)
    const value = await readRecord(record)
    if (value === undefined) return undefined
    const devices = asArray(value.devices, `${record}: devices`, MAX_DEVICES)
    return {
      chainId,
      path: index,
      verity: parseVerity(value.indexVerity, `${record}: indexVerity`),
      devices: devices.map((device) => asCount(device, `${record}: devices`)),
    }
  }

  beginPart(digest: Digest, size: number): Promise<LayerPart | undefined> {
    if (size < PART_BYTES) return Promise.resolve(undefined)
    return Promise.resolve(new FolderPart(join(this.#folder, `${digestHex(digest)}.part`), size))
  }

  async freeBytes(): Promise<number> {
    const { bavail, bsize } = await statfs(this.#folder)
    return bavail * bsize
  }

  /** Drafts that a killed process left. The caller has made sure that nobody else is at work here. */
  async removeDrafts(): Promise<void> {
    const names = (await readdir(this.#folder)).filter((name) => name.startsWith(DRAFT_PREFIX))
    await Promise.all(names.map((name) => rm(join(this.#folder, name), { force: true })))
  }

  beginIndex(chainId: Digest): Promise<IndexDraft> {
    const final = this.#names(chainId)
    const draft = this.#drafted(chainId)
    return Promise.resolve({
      indexPath: draft.index,
      commit: async ({ verity, devices }) => {
        await writeFile(draft.indexRecord, JSON.stringify({ indexVerity: verity, devices }))
        await rename(draft.index, final.index)
        await rename(draft.indexRecord, final.indexRecord)
        return { chainId, path: final.index, verity, devices }
      },
      discard: () => discard(draft),
    })
  }

  #drafted(digest: Digest): Names {
    return names(join(this.#folder, `${DRAFT_PREFIX}${digestHex(digest)}-${process.pid}-${++this.#drafts}`))
  }

  #names(digest: Digest): Names {
    return names(join(this.#folder, digestHex(digest)))
  }
}

interface Names {
  readonly tar: string
  readonly entries: string
  readonly record: string
  readonly index: string
  readonly indexRecord: string
}

function names(base: string): Names {
  return {
    tar: `${base}.tar`,
    entries: `${base}.entries`,
    record: `${base}.json`,
    index: `${base}.erofs`,
    indexRecord: `${base}.erofs.json`,
  }
}

async function discard(draft: Names): Promise<void> {
  await Promise.allSettled(Object.values(draft).map((path) => rm(path, { force: true })))
}

async function readRecord(path: string): Promise<JsonObject | undefined> {
  const text = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  return text === undefined ? undefined : asObject(parseStrictJson(text, path), path)
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
