import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { LayerVerity } from '#image/layer/engine'
import { FileLayerStore } from '#image/layer/file-store'
import type { LayerDraft, LayerStore, StoredLayer } from '#image/layer/store'
import { FolderStore } from '#image/node/folder-store'
import { sha256 } from './fixtures.ts'

const DIFF_ID = sha256('layer')
const VERITY: LayerVerity = {
  dataBlockSize: 512,
  hashBlockSize: 4096,
  dataBlocks: 3,
  hashOffset: 4096,
  rootHash: 'ab'.repeat(32),
  salt: 'cd'.repeat(32),
}

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'caisson-store-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

async function draft(store: LayerStore): Promise<LayerDraft> {
  const begun = await store.begin(DIFF_ID)
  writeFileSync(begun.tarPath, 'tar')
  writeFileSync(begun.cataloguePath, 'entries')
  return begun
}

async function commit(begun: LayerDraft): Promise<StoredLayer> {
  return await begun.commit({ tarBytes: 3, tarVerity: VERITY })
}

const STORES: readonly (readonly [string, (path: string) => LayerStore])[] = [
  ['in memory', (path) => new FileLayerStore({ folder: path, remove: (file) => rm(file, { force: true }) })],
  ['in a folder', (path) => new FolderStore(path)],
]

for (const [title, open] of STORES) {
  test(`a layer is found once it is committed, and not before (${title})`, async (t) => {
    const store = open(folder(t))
    const begun = await draft(store)
    t.is(await store.find(DIFF_ID), undefined)
    const stored = await commit(begun)
    t.deepEqual(await store.find(DIFF_ID), stored)
    t.true(existsSync(stored.tar.path) && existsSync(stored.cataloguePath))
  })

  test(`a discarded layer leaves nothing (${title})`, async (t) => {
    const path = folder(t)
    const store = open(path)
    await (await draft(store)).discard()
    await (await store.begin(DIFF_ID)).discard()
    t.is(await store.find(DIFF_ID), undefined)
    t.deepEqual(readdirSync(path), [])
  })

  test(`an index is found once it is committed, whatever layer has the same name (${title})`, async (t) => {
    const path = folder(t)
    const store = open(path)
    // The chain of one layer is named as the layer.
    await commit(await draft(store))
    t.is(await store.findIndex(DIFF_ID), undefined)
    const begun = await store.beginIndex(DIFF_ID)
    writeFileSync(begun.indexPath, 'index')
    const stored = await begun.commit({ verity: VERITY, devices: [0] })
    t.deepEqual(await store.findIndex(DIFF_ID), stored)
    t.true(existsSync(stored.path))
    const another = await store.beginIndex(sha256('chain'))
    writeFileSync(another.indexPath, 'index')
    await another.discard()
    t.is(await store.findIndex(sha256('chain')), undefined)
    t.is(readdirSync(path).filter((name) => name.endsWith('.erofs')).length, 1)
  })

  test(`the same layer committed twice is one layer (${title})`, async (t) => {
    const path = folder(t)
    const store = open(path)
    const [one, two] = [await draft(store), await draft(store)]
    t.not(one.tarPath, two.tarPath)
    t.deepEqual(await commit(one), await commit(two))
    t.deepEqual(readdirSync(path).filter((name) => name.endsWith('.tar')).length, 1)
  })
}

test('a folder knows its layers again, and refuses records it did not write', async (t) => {
  const path = folder(t)
  const stored = await commit(await draft(new FolderStore(path)))
  t.deepEqual(await new FolderStore(path).find(DIFF_ID), stored)
  const record = stored.tar.path.replace('.tar', '.json')
  writeFileSync(record, '{"tarBytes": 1}')
  await t.throwsAsync(new FolderStore(path).find(DIFF_ID), { code: 'ERR_IMAGE_DOCUMENT' })
  writeFileSync(record, '{"tarBytes"')
  await t.throwsAsync(new FolderStore(path).find(DIFF_ID), { code: 'ERR_JSON' })
})

test('indexes can be kept apart from the tars, where nobody changes them before they are hashed', async (t) => {
  const [tars, indexes] = [folder(t), folder(t)]
  const store = new FileLayerStore({ folder: tars, indexFolder: indexes, remove: (file) => rm(file, { force: true }) })
  const stored = await commit(await draft(store))
  t.true(stored.tar.path.startsWith(`${tars}/`))
  t.true(stored.cataloguePath.startsWith(`${indexes}/`))
  const index = await store.beginIndex(DIFF_ID)
  t.true(index.indexPath.startsWith(`${indexes}/`))
  await (await draft(store)).discard()
  t.is(readdirSync(tars).length + readdirSync(indexes).length, 2)
})
