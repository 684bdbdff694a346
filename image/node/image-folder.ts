/**
 * An image in a folder: `manifest.json`, `config.json`, `image.json` (what it is, and which layers), and `layers/` with a
 * tar, a catalogue and a verity root per layer, and the index (`FolderStore`). `image.json` is written last: a folder
 * without one holds no image yet, but what a later pull can go on from.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { returnMemory } from '#native/shared/index'
import { MalformedError, UnavailableError } from '#protocol/errors'
import { type Digest, parseDigest } from '#protocol/oci/digest'
import { formatReference } from '#protocol/oci/reference'
import { asArray, asObject, asString } from '../json/fields.ts'
import { parseStrictJson } from '../json/strict-json.ts'
import { ConfinedIndexer, type RunProgram } from '../layer/indexer.ts'
import type { StoredIndex, StoredLayer } from '../layer/store.ts'
import { type PulledImage, type PullOptions, pullImage } from '../pull/pull-image.ts'
import { FolderStore } from './folder-store.ts'
import { nativeEngine } from './native-engine.ts'
import { runProgram } from './run-program.ts'

const MAX_LAYERS = 1024

export interface FolderPullOptions extends Omit<PullOptions, 'store' | 'engine' | 'indexer'> {
  /** Made if it is not there; one pull at a time. */
  readonly folder: string
  /** Path of caisson-index. */
  readonly indexer: string
}

export interface FolderImage {
  readonly reference: string
  readonly manifestDigest: Digest
  /** Base first. */
  readonly layers: readonly StoredLayer[]
  readonly index: StoredIndex
}

/** As `pullImage`; additionally `UnavailableError` ERR_PULL_BUSY. */
export async function pullToFolder(options: FolderPullOptions): Promise<PulledImage> {
  const { folder, indexer, ...pull } = options
  returnMemory()
  const layers = join(folder, 'layers')
  await mkdir(layers, { recursive: true })
  await using _lock = await lockFolder(folder)
  const store = new FolderStore(layers)
  await store.removeDrafts()
  await rm(join(folder, 'image.json'), { force: true })
  const image = await pullImage({
    ...pull,
    store,
    engine: nativeEngine,
    indexer: new ConfinedIndexer({ run: indexing, program: indexer }),
  })
  await writeFile(join(folder, 'manifest.json'), image.documents.manifest)
  await writeFile(join(folder, 'config.json'), image.documents.config)
  const { reference, manifestDigest, admittedBy, index } = image
  const record = {
    reference: formatReference(reference),
    manifestDigest,
    admittedBy,
    layers: image.layers.map(({ diffId }) => diffId),
    chainId: index.chainId,
  }
  await writeFile(join(folder, 'image.json.new'), `${JSON.stringify(record, undefined, 2)}\n`)
  await rename(join(folder, 'image.json.new'), join(folder, 'image.json'))
  return image
}

/** The indexer wants memory when the layers are done with theirs. */
const indexing: RunProgram = (...call) => {
  returnMemory()
  return runProgram(...call)
}

/** Throws `UnavailableError` ERR_IMAGE_FOLDER, and the errors of `FolderStore`. */
export async function openImageFolder(folder: string): Promise<FolderImage> {
  const path = join(folder, 'image.json')
  const text = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw new UnavailableError('ERR_IMAGE_FOLDER', `${folder}: holds no complete image: ${cause.code}`, {
      cause,
      hint: 'Pull one into it: caisson image pull --to DIR REFERENCE.',
    })
  })
  const record = asObject(parseStrictJson(text, path), path)
  const store = new FolderStore(join(folder, 'layers'))
  const diffIds = asArray(record.layers, `${path}: layers`, MAX_LAYERS)
  const layers = await Promise.all(
    diffIds.map(async (value) => {
      const diffId = parseDigest(value, `${path}: layers`)
      return (await store.find(diffId)) ?? missing(folder, `layer ${diffId}`)
    }),
  )
  const chainId = parseDigest(record.chainId, `${path}: chainId`)
  const index = (await store.findIndex(chainId)) ?? missing(folder, `the index ${chainId}`)
  if (index.devices.some((position) => position >= layers.length)) {
    throw new MalformedError('ERR_IMAGE_DOCUMENT', `${path}: the index names layers that the image has not`)
  }
  return {
    reference: asString(record.reference, `${path}: reference`),
    manifestDigest: parseDigest(record.manifestDigest, `${path}: manifestDigest`),
    layers,
    index,
  }
}

function missing(folder: string, what: string): never {
  throw new UnavailableError('ERR_IMAGE_FOLDER', `${folder}: ${what} is not there`, { hint: 'Pull the image again.' })
}

/** A file with the number of the process that holds it. Who was killed holds nothing. */
async function lockFolder(folder: string): Promise<AsyncDisposable> {
  const path = join(folder, '.pull.lock')
  for (;;) {
    try {
      await writeFile(path, `${process.pid}`, { flag: 'wx' })
      return { [Symbol.asyncDispose]: () => rm(path, { force: true }) }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
    const holder = Number(await readFile(path, 'latin1').catch(() => '0'))
    if (holder > 0 && isAlive(holder)) {
      throw new UnavailableError('ERR_PULL_BUSY', `${folder}: process ${holder} pulls into it`, {
        hint: 'Wait for it to end, or pull into another folder.',
      })
    }
    await rm(path, { force: true })
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
