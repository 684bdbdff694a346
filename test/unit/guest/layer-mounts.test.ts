import test from 'ava'
import { LayerMounts } from '#guest/agent/layer-mounts'
import { mountRootfs } from '#guest/agent/rootfs'
import type { MountRequest, VerityDevice } from '#guest/platform/platform'
import { storedLayer } from './container-parts.ts'
import { FakePlatform } from './fake-platform.ts'

function setUp() {
  const platform = new FakePlatform()
  const mounts: MountRequest[] = []
  const verity = new Map<string, VerityDevice>()
  const storage: FakePlatform['storage'] = {
    ...platform.storage,
    mount: async (request) => {
      mounts.push(request)
    },
    openVerity: async (name, device) => {
      const path = `/dev/verity/${name}`
      verity.set(path, device)
      return path
    },
  }
  return { storage, files: platform.files, mounts, verity }
}

test('a layer is mounted through dm-verity alone, index and tar, with the roots that the pull computed', async (t) => {
  const { storage, files, mounts, verity } = setUp()
  const layer = storedLayer('e')
  await new LayerMounts({ storage, files }, '/l').acquire(layer)
  const [mount] = mounts
  t.is(mounts.length, 1)
  const device = /^device=(.*)$/.exec(mount?.data ?? '')?.[1] ?? ''
  const backing = (part: typeof layer.tar) => ({
    data: `/dev/loop:${part.path}`,
    hash: `/dev/loop:${part.path}`,
    ...part.verity,
  })
  t.deepEqual(verity.get(mount?.source ?? ''), backing(layer.index))
  t.deepEqual(verity.get(device), backing(layer.tar))
})

test('neither a layer nor a container’s root can bring device nodes, and layers stay read-only', async (t) => {
  const { storage, files, mounts } = setUp()
  await using undo = new AsyncDisposableStack()
  const layers = [storedLayer('a'), storedLayer('b')]
  const platform = { storage, files }
  await mountRootfs(platform, new LayerMounts(platform, '/l'), { layers, writable: '/w', target: '/root' }, undo)
  const erofs = mounts.filter(({ type }) => type === 'erofs')
  t.is(erofs.length, 2)
  for (const { flags } of erofs) t.deepEqual([...flags].sort(), ['nodev', 'nosuid', 'ro'])
  const overlay = mounts.find(({ type }) => type === 'overlay')
  t.true(overlay?.flags.includes('nodev'))
  // The base comes last: what is named first lies on top.
  t.regex(overlay?.data ?? '', /^lowerdir=\/l\/0:\/l\/1,upperdir=\/w\/upper,workdir=\/w\/work,/)
  t.deepEqual(
    erofs.map(({ target }) => target),
    ['/l/0', '/l/1'],
  )
})
