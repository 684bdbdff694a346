import test from 'ava'
import { ImageMounts } from '#guest/agent/image-mounts'
import { mountImageVolumes } from '#guest/agent/image-volumes'
import { mountRootfs } from '#guest/agent/rootfs'
import type { MountRequest, VerityDevice } from '#guest/platform/platform'
import type { SealedFile } from '#image/layer/store'
import { UnavailableError } from '#protocol/errors'
import { storedIndex, storedLayer } from './container-parts.ts'
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

const backing = (part: SealedFile) => ({
  data: `/dev/loop:${part.path}`,
  hash: `/dev/loop:${part.path}`,
  ...part.verity,
})

const devicesOf = (mount: MountRequest | undefined) =>
  (mount?.data ?? '').split(',').map((option) => option.replace('device=', ''))

test('an image is mounted through dm-verity alone, index and tars, with the roots that the pull computed', async (t) => {
  const { storage, files, mounts, verity } = setUp()
  const layers = [storedLayer('a'), storedLayer('b'), storedLayer('c')]
  // The second layer has no content that can still be seen.
  const index = storedIndex('e', [0, 2])
  await new ImageMounts({ storage, files }, '/l').acquire({ layers, index })
  t.is(mounts.length, 1)
  t.deepEqual(verity.get(mounts[0]?.source ?? ''), backing(index))
  t.deepEqual(
    devicesOf(mounts[0]).map((device) => verity.get(device)),
    [backing(storedLayer('a').tar), backing(storedLayer('c').tar)],
  )
})

test('two images that share a layer share its device, and the last one to go lets go of it', async (t) => {
  const { storage, files, mounts } = setUp()
  const closed: string[] = []
  const platform = { storage: { ...storage, closeMapped: async (name: string) => void closed.push(name) }, files }
  const images = new ImageMounts(platform, '/l')
  const one = await images.acquire({ layers: [storedLayer('a'), storedLayer('b')], index: storedIndex('e', [0, 1]) })
  const two = await images.acquire({ layers: [storedLayer('a')], index: storedIndex('f', [0]) })
  t.is(devicesOf(mounts[0])[0], devicesOf(mounts[1])[0])
  await one.release()
  t.is(closed.length, 2)
  await two.release()
  t.is(closed.length, 4)
})

test('the root of a container has owner, mode and times of its image’s root, before it is mounted', async (t) => {
  const platform = new FakePlatform()
  await using undo = new AsyncDisposableStack()
  const image = { layers: [storedLayer('a')], index: storedIndex('e', [0]) }
  await mountRootfs(platform, new ImageMounts(platform, '/l'), { image, writable: '/w', target: '/root' }, undo)
  const steps = platform.log.filter((step) => /^(?:mount|attributes)/.test(step))
  t.deepEqual(steps, ['mount erofs /l/0', 'attributes /l/0 /w/upper', 'mount overlay /root'])
})

test('neither an image nor a container’s root can bring device nodes, and images stay read-only', async (t) => {
  const { storage, files, mounts } = setUp()
  await using undo = new AsyncDisposableStack()
  const image = { layers: [storedLayer('a'), storedLayer('b')], index: storedIndex('e', [0, 1]) }
  const platform = { storage, files }
  await mountRootfs(platform, new ImageMounts(platform, '/l'), { image, writable: '/w', target: '/root' }, undo)
  const erofs = mounts.filter(({ type }) => type === 'erofs')
  t.is(erofs.length, 1)
  for (const { flags } of erofs) t.deepEqual([...flags].sort(), ['nodev', 'nosuid', 'ro'])
  const overlay = mounts.find(({ type }) => type === 'overlay')
  t.true(overlay?.flags.includes('nodev'))
  t.is(overlay?.data?.startsWith(`lowerdir=${erofs[0]?.target},upperdir=/w/upper,workdir=/w/work,`), true)
})

test('volumes of the image are writable with its content, parents first, beside what the policy mounts and the guest makes', async (t) => {
  const platform = new FakePlatform()
  await using undo = new AsyncDisposableStack()
  const image = { layers: [storedLayer('a')], index: storedIndex('e', [0]) }
  const { storage } = platform
  const bindInRoot: typeof storage.bindInRoot = async (request) => {
    await storage.bindInRoot(request)
    const cause = Object.assign(new Error('bind'), { errno: 'ENOENT' })
    if (request.path === 'missing') throw new UnavailableError('ERR_VOLUME_PATH', 'nothing is there', { cause })
  }
  const declared = ['/data/sub', '/data', '/missing', '/dev/shm', '/proc', '/mine']
  const input = { image, declared, taken: ['/mine'], writable: '/w', bundle: '/b' }
  const its = { files: platform.files, storage: { ...storage, bindInRoot } }
  const binds = await mountImageVolumes(its, new ImageMounts(platform, '/l'), input, undo)
  t.deepEqual(
    binds.map(({ source, destination, readOnly }) => [destination, source, readOnly]),
    [
      ['/data', '/b/image-volume-0', false],
      ['/data/sub', '/b/image-volume-1', false],
      ['/missing', '/w/volume-2', false],
    ],
  )
  const steps = platform.log.filter((step) => /^(?:bind|attributes|mount overlay)/.test(step))
  t.deepEqual(steps.slice(0, 3), [
    'bind /l/0|data /b/content-0',
    'attributes /b/content-0 /w/volume-0/upper',
    'mount overlay /b/image-volume-0',
  ])
})

test('a volume of the image that leads out of it keeps the container from being made', async (t) => {
  const platform = new FakePlatform()
  await using undo = new AsyncDisposableStack()
  const image = { layers: [storedLayer('a')], index: storedIndex('e', [0]) }
  platform.storage.bindInRoot = async () => {
    const cause = Object.assign(new Error('bind'), { errno: 'ELOOP' })
    throw new UnavailableError('ERR_VOLUME_PATH', 'a link', { cause })
  }
  const input = { image, declared: ['/data'], taken: [], writable: '/w', bundle: '/b' }
  const made = mountImageVolumes(platform, new ImageMounts(platform, '/l'), input, undo)
  await t.throwsAsync(made, { code: 'ERR_VOLUME_PATH' })
})
