import test from 'ava'
import { VerifiedIndexer } from '#guest/agent/verified-indexer'
import type { VerityDevice } from '#guest/platform/platform'
import type { LayerToIndex } from '#image/layer/indexer'
import { storedLayer } from './container-parts.ts'
import { FakePlatform } from './fake-platform.ts'

const { tar } = storedLayer('b')
const LAYER: LayerToIndex = {
  tarPath: tar.path,
  tarVerity: tar.verity,
  indexPath: '/memory/b.erofs',
  tarBytes: 4096,
  what: 'layer',
}

test('the indexer reads a layer through the root hash of the pass that verified it, never from the disk itself', async (t) => {
  const platform = new FakePlatform()
  const opened: VerityDevice[] = []
  const storage: FakePlatform['storage'] = {
    ...platform.storage,
    openVerity: (name, device) => {
      opened.push(device)
      return platform.storage.openVerity(name, device)
    },
  }
  let seen: LayerToIndex | undefined
  const inner = {
    index: async (layer: LayerToIndex) => {
      seen = layer
      platform.log.push('index')
    },
  }
  await new VerifiedIndexer(storage, inner).index(LAYER)
  t.deepEqual(seen, { ...LAYER, tarPath: '/dev/mapper:indexing0' })
  t.deepEqual(opened, [{ data: `/dev/loop:${tar.path}`, hash: `/dev/loop:${tar.path}`, ...tar.verity }])
  t.deepEqual(platform.log, [
    `loop ${tar.path}`,
    'verity indexing0',
    'index',
    'close indexing0',
    `detach /dev/loop:${tar.path}`,
  ])
})

test('a layer that cannot be indexed leaves no device behind', async (t) => {
  const platform = new FakePlatform()
  const inner = { index: () => Promise.reject(new Error('no tar')) }
  await t.throwsAsync(new VerifiedIndexer(platform.storage, inner).index(LAYER), { message: 'no tar' })
  t.deepEqual(platform.log.slice(-2), ['close indexing0', `detach /dev/loop:${tar.path}`])
})
