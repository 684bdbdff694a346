import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, type DescMessage, type MessageInitShape, type MessageShape } from '@bufbuild/protobuf'
import { Metadata, status } from '@grpc/grpc-js'
import test, { type ExecutionContext } from 'ava'
import {
  CommitSnapshotRequestSchema,
  Kind,
  ListSnapshotsRequestSchema,
  MountsRequestSchema,
  PrepareSnapshotRequestSchema,
  RemoveSnapshotRequestSchema,
  StatSnapshotRequestSchema,
} from '#host-shim/containerd/gen/snapshots_pb'
import { UNRESOLVED_ID } from '#host-shim/node/container-request'
import { checkPatterns, isGuestImage } from '#host-shim/snapshotter/guest-references'
import { fillPlaceholderRoot } from '#host-shim/snapshotter/placeholder-root'
import { type RootRequest, type RootUser, snapshotService } from '#host-shim/snapshotter/snapshotter'
import { SnapshotStore } from '#host-shim/snapshotter/store'

function snapshotter(t: ExecutionContext) {
  const directory = mkdtempSync(join(tmpdir(), 'snapshots-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const store = new SnapshotStore(directory)
  const chains: string[] = []
  const fillRoot = ({ directory: root, chainId }: RootRequest) => {
    chains.push(chainId)
    return fillPlaceholderRoot(root, ['web:staff', '1000', ''])
  }
  const isGuestsOnly = async ({ chainId }: Pick<RootRequest, 'chainId'>): Promise<boolean> =>
    chainId === 'sha256:guests'
  const users: RootUser[] = []
  const checkRuntime = async (user: RootUser): Promise<void> => {
    users.push(user)
    if (user.container === 'plain') throw new Error('no guest runs it')
  }
  const service = snapshotService({ store, guestImages: ['registry.test/shop/'], isGuestsOnly, fillRoot, checkRuntime })
  const context = { metadata: new Metadata() }
  const call = <Schema extends DescMessage, Answer>(
    method: (request: MessageShape<Schema>, options: typeof context) => Promise<Answer>,
    schema: Schema,
    request: MessageInitShape<Schema>,
  ): Promise<Answer> => method(create(schema, request), context)
  return {
    directory,
    chains,
    users,
    mounts: (key: string) => call(service.mounts, MountsRequestSchema, { key }),
    prepare: (key: string, parent = '', labels: Record<string, string> = {}) =>
      call(service.prepare, PrepareSnapshotRequestSchema, { key, parent, labels }),
    commit: (name: string, key: string) => call(service.commit, CommitSnapshotRequestSchema, { name, key }),
    remove: (key: string) => call(service.remove, RemoveSnapshotRequestSchema, { key }),
    stat: (key: string) => call(service.stat, StatSnapshotRequestSchema, { key }),
    list: async () => {
      const infos = []
      for await (const { info = [] } of service.list(create(ListSnapshotsRequestSchema), context)) infos.push(...info)
      return infos
    },
  }
}

const layer = (target: string, image: string) => ({
  'containerd.io/snapshot.ref': target,
  'containerd.io/snapshot/cri.image-ref': image,
})

test('a layer of an image that guests pull exists before it is fetched, and containerd can find it', async (t) => {
  const { prepare, list } = snapshotter(t)
  const labels = layer('sha256:aa', 'registry.test/shop/web:1')
  await t.throwsAsync(prepare('k8s.io/1/extract-1 sha256:aa', '', labels), { code: status.ALREADY_EXISTS as never })
  const [base] = await list()
  t.like(base, { kind: Kind.COMMITTED, parent: '', labels })
  const second = layer('sha256:bb', 'registry.test/shop/web:1')
  const parent = base?.name ?? ''
  await t.throwsAsync(prepare('k8s.io/2/extract-2 sha256:bb', parent, second), { code: status.ALREADY_EXISTS as never })
  t.true((await list()).some((info) => info.parent === parent && info.kind === Kind.COMMITTED))
  // Pulled twice at once: the same answer.
  await t.throwsAsync(prepare('k8s.io/3/extract-3 sha256:aa', '', labels), { code: status.ALREADY_EXISTS as never })
  t.is((await list()).length, 2)
})

test('a container of such an image has a root with nothing but names, none of which is a user of this machine', async (t) => {
  const { chains, prepare, list } = snapshotter(t)
  await t.throwsAsync(prepare('k8s.io/1/extract-1', '', layer('sha256:aa', 'registry.test/shop/web:1')))
  const [base] = await list()
  const { mounts } = await prepare('k8s.io/2/container', base?.name)
  t.deepEqual(chains, ['sha256:aa'])
  const [mount] = mounts ?? []
  t.like(mount, { type: 'bind', options: ['rbind', 'rw'] })
  t.deepEqual(readdirSync(mount?.source ?? ''), ['etc'])
  const passwd = readFileSync(join(mount?.source ?? '', 'etc/passwd'), 'utf8')
  t.is(passwd, `root:x:0:0:root:/root:\nweb:x:${UNRESOLVED_ID}:${UNRESOLVED_ID}::/:\n`)
  t.regex(readFileSync(join(mount?.source ?? '', 'etc/group'), 'utf8'), /^staff:x:/m)
})

test('an image that shares unfetched layers with a guest’s is refused, not run with holes', async (t) => {
  const { prepare, list } = snapshotter(t)
  await t.throwsAsync(prepare('k8s.io/1/extract-1', '', layer('sha256:aa', 'registry.test/shop/web:1')))
  const [base] = await list()
  const error = await t.throwsAsync(
    prepare('k8s.io/2/extract-2 sha256:bb', base?.name, layer('sha256:bb', 'registry.test/other:1')),
    { code: status.FAILED_PRECONDITION as never },
  )
  t.regex(error?.message ?? '', /only guests fetch/)
})

test('a root of unfetched layers is mounted for containers that guests run, and for no other', async (t) => {
  const { prepare, list, mounts, users } = snapshotter(t)
  await t.throwsAsync(prepare('k8s.io/1/extract-1', '', layer('sha256:aa', 'registry.test/shop/web:1')))
  const [base] = await list()
  for (const name of ['guests', 'plain']) await prepare(`k8s.io/2/${name}`, base?.name)
  await t.notThrowsAsync(mounts('k8s.io/2/guests'))
  await t.throwsAsync(mounts('k8s.io/2/plain'), { message: 'no guest runs it' })
  t.deepEqual(
    users.map(({ container }) => container),
    ['guests', 'plain'],
  )
  // Where nothing was skipped, nobody is asked.
  await prepare('k8s.io/3/plain')
  await t.notThrowsAsync(mounts('k8s.io/3/plain'))
})

test('other images are unpacked and stacked as overlayfs does, and removed with their files', async (t) => {
  const { directory, prepare, commit, remove, stat } = snapshotter(t)
  const { mounts: first } = await prepare('extract-a', '', layer('sha256:aa', 'registry.test/other:1'))
  t.like(first?.[0], { type: 'bind' })
  await commit('sha256:aa', 'extract-a')
  const { mounts: second } = await prepare('extract-b', 'sha256:aa', layer('sha256:bb', 'registry.test/other:1'))
  t.is(second?.[0]?.type, 'overlay')
  t.true(second?.[0]?.options?.some((option) => option === `lowerdir=${first?.[0]?.source}`))
  await commit('sha256:bb', 'extract-b')
  const { mounts: container } = await prepare('container', 'sha256:bb')
  t.is(container?.[0]?.options?.find((option) => option.startsWith('lowerdir='))?.split(':').length, 2)
  t.like(await stat('container'), { info: { kind: Kind.ACTIVE, parent: 'sha256:bb' } })
  await t.throwsAsync(remove('sha256:aa'), { code: status.FAILED_PRECONDITION as never })
  for (const key of ['container', 'sha256:bb', 'sha256:aa']) await remove(key)
  t.deepEqual(readdirSync(join(directory, 'snapshots')), [])
  await t.throwsAsync(stat('container'), { code: status.NOT_FOUND as never })
})

test('a container of a guest’s image has a root of names alone, also where its layers are here', async (t) => {
  const { prepare, commit, mounts, users } = snapshotter(t)
  for (const chain of ['guests', 'plain']) {
    await prepare(`extract-${chain}`)
    await commit(`k8s.io/1/sha256:${chain}`, `extract-${chain}`)
  }
  const guests = await prepare('k8s.io/2/c1', 'k8s.io/1/sha256:guests')
  t.like(guests.mounts?.[0], { type: 'bind' })
  t.deepEqual(readdirSync(guests.mounts?.[0]?.source ?? ''), ['etc'])
  await mounts('k8s.io/2/c1')
  t.deepEqual(
    users.map(({ container }) => container),
    ['c1'],
  )
  const plain = await prepare('k8s.io/2/c2', 'k8s.io/1/sha256:plain')
  t.is(plain.mounts?.[0]?.type, 'overlay')
})

test('a pattern names a registry, a path or a repository, and matches whole names only', (t) => {
  t.true(isGuestImage('registry.test:5000/shop/web:1', ['registry.test:5000/shop/']))
  t.true(isGuestImage('registry.test:5000/shop/web@sha256:00', ['registry.test:5000']))
  t.true(isGuestImage('registry.test/shop/web:1', ['registry.test/shop/web']))
  t.true(isGuestImage('anything:1', ['*']))
  t.false(isGuestImage('registry.test/shop/website:1', ['registry.test/shop/web']))
  t.false(isGuestImage('registry.test.evil/shop/web:1', ['registry.test/']))
  t.false(isGuestImage('registry.test/shop/web:1', []))
  t.throws(() => checkPatterns(['registry.test/shop/web:1@']), { code: 'ERR_GUEST_IMAGES' })
})
