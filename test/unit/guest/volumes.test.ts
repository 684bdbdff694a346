import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { ContentVolume } from '#guest/agent/content-volume'
import { makeEmptyVolume } from '#guest/agent/empty-volume'
import { MAX_VOLUME_UPLOADS } from '#guest/agent/limits'
import { PodVolumes } from '#guest/agent/pod-volumes'
import { receiveVolume } from '#guest/agent/volume-upload'
import { nodeFiles } from '#guest/platform/node/files'
import { PolicyEngine } from '#policies/engine'
import type { MountRule } from '#policies/mount-rule'
import type { VolumeRule } from '#policies/volume-rule'
import { parseWorkloadPolicy } from '#policies/workload'
import { CaissonError } from '#protocol/errors'
import { type SetVolumeRequest, SetVolumeRequestSchema, VolumeKind } from '#protocol/gen/agent_pb'
import { MAX_VOLUME_BYTES, MAX_VOLUME_FILES } from '#protocol/volume-content'
import { FakePlatform } from './fake-platform.ts'

type Message = MessageInitShape<typeof SetVolumeRequestSchema>

async function* stream(messages: readonly Message[]): AsyncGenerator<SetVolumeRequest> {
  for (const message of messages) yield create(SetVolumeRequestSchema, message)
}

const bytes = (text: string) => new TextEncoder().encode(text)
const HEADER: Message = { kind: VolumeKind.CONFIG_MAP, name: 'settings' }
const receive = (messages: readonly Message[]) => receiveVolume(stream(messages), (volume) => volume)

test('files arrive whole, however they were cut', async (t) => {
  const content = bytes('0123456789')
  const cut = fc.array(fc.nat(10), { maxLength: 6 }).map((cuts) => [0, ...cuts.toSorted((a, b) => a - b), 10])
  await fc.assert(
    fc.asyncProperty(cut, async (at) => {
      const pieces = at.slice(1).map((to, index) => ({
        files: [{ path: index === 0 ? 'a/b' : '', content: content.subarray(at[index], to) }],
      }))
      const { rule, files } = await receive([HEADER, ...pieces])
      t.deepEqual(rule, { kind: 'config-map', name: 'settings' })
      t.deepEqual(files, [{ path: 'a/b', content }])
    }),
  )
})

test('whatever the host sends as a volume is a bounded tree of plain names, or refused', async (t) => {
  const path = fc.oneof(fc.constantFrom('a', 'a/b', '', '../x', '/etc/passwd', '..data', 'a\0b'), fc.string())
  const message = fc.record(
    {
      kind: fc.oneof(fc.constantFrom(0, 1, 2), fc.integer({ min: 0, max: 9 })),
      name: fc.oneof(fc.constantFrom('settings', '', '../x'), fc.string()),
      files: fc.array(fc.record({ path, content: fc.uint8Array({ maxLength: 8 }) }), { maxLength: 4 }),
    },
    { requiredKeys: [] },
  )
  await t.notThrowsAsync(
    fc.assert(
      fc.asyncProperty(fc.array(message as fc.Arbitrary<Message>, { maxLength: 4 }), async (messages) => {
        try {
          const { files } = await receive(messages)
          return files.every(
            (file) => /^[-.\w]+(\/[-.\w]+)*$/.test(file.path) && !/(^|\/)\.\.|(^|\/)\.(\/|$)/.test(file.path),
          )
        } catch (error) {
          return error instanceof CaissonError
        }
      }),
      { numRuns: 500 },
    ),
  )
})

const tooMuch: Readonly<Record<string, readonly Message[]>> = {
  'more bytes than a ConfigMap may have': [
    HEADER,
    ...Array.from({ length: 9 }, (_, index) => ({
      files: [{ path: index === 0 ? 'a' : '', content: new Uint8Array(MAX_VOLUME_BYTES / 8) }],
    })),
  ],
  'more files than a volume may have': [
    HEADER,
    { files: Array.from({ length: MAX_VOLUME_FILES + 1 }, (_, index) => ({ path: `f${index}`, content: bytes('') })) },
  ],
}
for (const [what, messages] of Object.entries(tooMuch)) {
  test(`a volume with ${what} is refused while it arrives`, async (t) => {
    await t.throwsAsync(receive(messages), { code: 'ERR_LIMIT' })
  })
}

const malformed: Readonly<Record<string, readonly Message[]>> = {
  'without its first message': [],
  'of no kind': [{ name: 'settings' }],
  'of a kind that there is not': [{ kind: 99 as VolumeKind, name: 'settings' }],
  'that is named twice': [HEADER, HEADER],
  'whose first file has no name': [{ ...HEADER, files: [{ content: bytes('x') }] }],
}
for (const [what, messages] of Object.entries(malformed)) {
  test(`a volume ${what} is malformed`, async (t) => {
    await t.throwsAsync(receive(messages), { code: 'ERR_REQUEST_MALFORMED' })
  })
}

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'volume-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

const RULE = {
  kind: 'config-map',
  name: 'settings',
  mutable: true,
  digest: undefined,
  mode: 0o440,
  uid: 1,
  gid: 2,
} as const

test('content changes as a whole: every name leads through one link, and only what is current is kept', async (t) => {
  const root = folder(t)
  const platform = { files: nodeFiles, storage: new FakePlatform().storage }
  const volume = await ContentVolume.make(platform, RULE, root)
  await volume.replace([
    { path: 'a', content: bytes('one') },
    { path: 'conf.d/deep/b', content: bytes('two') },
  ])
  t.is(readFileSync(join(root, 'a'), 'utf8'), 'one')
  t.is(readFileSync(join(root, 'conf.d/deep/b'), 'utf8'), 'two')
  t.is(readlinkSync(join(root, 'a')), '..data/a')
  const { mode, uid, gid } = statSync(join(root, 'a'))
  t.deepEqual([mode & 0o777, uid, gid], [0o440, 1, 2])
  const version = readlinkSync(join(root, '..data'))
  await volume.replace([{ path: 'a', content: bytes('three') }])
  t.not(readlinkSync(join(root, '..data')), version)
  t.deepEqual(readdirSync(root).sort(), ['..data', readlinkSync(join(root, '..data')), 'a'].sort())
  t.is(readFileSync(join(root, 'a'), 'utf8'), 'three')
  await volume.replace([])
  t.false(readdirSync(root).includes('a'))
})

const KEY = new Uint8Array(64).map((_, index) => index)
const resource = async () => KEY.slice()
const POLICY = `
apiVersion: caisson/v1
kind: WorkloadPolicy
volumes:
  - { name: settings, kind: config-map }
  - { name: labels, kind: downward-api, mutable: true }
  - { name: cache, kind: scratch, maxBytes: 8388608, gid: 2000 }
  - { name: fast, kind: tmpfs, maxBytes: 8388608 }
  - { name: raw, kind: block }
  - { name: db, kind: luks, key: default/keys/db, format: empty }
  - { name: kept, kind: luks, key: default/keys/db }
containers:
  - name: app
    image: registry.test/app@sha256:${'a'.repeat(64)}
    devices: [{ volume: raw, path: /dev/raw, gid: 7 }, { volume: db, path: /dev/db }, { volume: kept, path: /dev/kept }]
`

function setUp() {
  const platform = new FakePlatform()
  const parsed = parseWorkloadPolicy(POLICY)
  const volumes = new PodVolumes({ platform, policy: new PolicyEngine(parsed), scratch: '/scratch', resource })
  const mount = (name: string, subPath?: string) => {
    const volume = parsed.volumes.get(name) as VolumeRule
    const rule = {
      kind: volume.kind,
      path: '/x',
      readOnly: false,
      maxBytes: undefined,
      required: true,
      subPath,
      volume,
    }
    return volumes.mount(rule satisfies MountRule, '/target', new AsyncDisposableStack())
  }
  const deliver = (name: string, text: string, kind: VolumeKind = VolumeKind.CONFIG_MAP) =>
    volumes.deliver(stream([{ kind, name, files: [{ path: 'a', content: bytes(text) }] }]))
  const devices = parsed.containers[0]?.devices ?? []
  const give = (disks: Readonly<Record<string, string>>) =>
    volumes.devices(
      devices.flatMap((rule) => {
        const disk = disks[rule.volume.name]
        return disk === undefined ? [] : [{ rule, disk }]
      }),
    )
  return { platform, volumes, mount, deliver, give }
}

test('a container waits for the content of its volumes, which lies where the guest chose', async (t) => {
  const { mount, deliver } = setUp()
  await t.throwsAsync(mount('settings'), { code: 'ERR_VOLUME_EMPTY' })
  await deliver('settings', 'one')
  t.deepEqual(await mount('settings'), { source: '/run/caisson/v/1', destination: '/x', readOnly: false })
})

test('content is replaced where the policy says so, and kept where it does not', async (t) => {
  const { platform, deliver } = setUp()
  await deliver('settings', 'one')
  await deliver('settings', 'one')
  const error = await t.throwsAsync(deliver('settings', 'two'), { code: 'ERR_POLICY_DENIED' })
  t.regex(error?.message ?? '', /^volumes\.settings\.mutable/)
  await t.throwsAsync(deliver('labels', 'x', VolumeKind.SECRET), { code: 'ERR_POLICY_DENIED' })
  await deliver('labels', 'one', VolumeKind.DOWNWARD_API)
  await deliver('labels', 'two', VolumeKind.DOWNWARD_API)
  const contents = [...platform.content].filter(([path]) => path.startsWith('/run/caisson/v/'))
  t.deepEqual(
    contents.map(([path, content]) => [path, new TextDecoder().decode(content)]),
    [
      ['/run/caisson/v/1/..v1/a', 'one'],
      ['/run/caisson/v/2/..v2/a', 'two'],
    ],
  )
})

test('a volume that starts empty is made once for all containers, with its limit, group and place', async (t) => {
  const { platform, mount } = setUp()
  const [first, second] = await Promise.all([mount('cache'), mount('cache')])
  t.is(first.source, second.source)
  t.deepEqual(
    platform.log.filter((step) => /^(?:run|loop|mount)/.test(step)),
    ['run /usr/sbin/mke2fs', 'loop /scratch/volumes/p1.img', 'mount ext4 /run/caisson/v/1'],
  )
  t.is((await mount('fast')).source, '/run/caisson/v/2')
  t.true(platform.log.includes('mount tmpfs /run/caisson/v/2'))
})

test('a volume that could not be made is tried again, and nothing of the attempt is left', async (t) => {
  const { platform, mount } = setUp()
  platform.failing = 'mount ext4'
  await t.throwsAsync(mount('cache'))
  t.true(platform.log.some((step) => step.startsWith('detach')))
  platform.failing = undefined
  await t.notThrowsAsync(mount('cache'))
})

test('a part of a volume is looked up inside it, and missing directories are made only where containers may write', async (t) => {
  const { platform, mount, deliver } = setUp()
  await deliver('settings', 'one')
  t.is((await mount('settings', 'a')).source, '/target')
  t.true(platform.log.includes('bind /run/caisson/v/1|a /target'))
  await mount('fast', 'x/y')
  t.true(platform.log.includes('bind /run/caisson/v/2|x/y /target'))
})

test('a volume of the disk that is too small for a file system has its limit in memory', async (t) => {
  const platform = new FakePlatform()
  const places = { scratch: '/scratch/v', target: '/t' }
  const undo = new AsyncDisposableStack()
  t.is(await makeEmptyVolume(platform, { kind: 'scratch', maxBytes: 4096, gid: undefined }, places, undo), '/t')
  t.is(
    await makeEmptyVolume(platform, { kind: 'scratch', maxBytes: undefined, gid: undefined }, places, undo),
    '/scratch/v',
  )
})

test('a host that never finishes its uploads holds a bounded number of them', async (t) => {
  const { volumes } = setUp()
  const never = async function* (): AsyncGenerator<SetVolumeRequest> {
    yield create(SetVolumeRequestSchema, HEADER)
    await new Promise(() => undefined)
  }
  for (let count = 0; count < MAX_VOLUME_UPLOADS; count++) void volumes.deliver(never())
  await t.throwsAsync(volumes.deliver(never()), { code: 'ERR_LIMIT' })
})

test('a block device appears as it is, and a volume and its disk belong together', async (t) => {
  const { platform, give } = setUp()
  platform.content.set('/sys/class/block/block-0/dev', bytes('254:48\n'))
  const node = { path: '/dev/raw', major: 254, minor: 48, readOnly: false, uid: 0, gid: 7 }
  t.deepEqual(await give({ raw: 'block-0', db: 'block-1' }), [node])
  t.deepEqual(await give({ raw: 'block-0' }), [node])
  await t.throwsAsync(give({ raw: 'block-2' }), { code: 'ERR_VOLUME_DISK' })
  await t.throwsAsync(give({ kept: 'block-1' }), { code: 'ERR_VOLUME_DISK' })
})

test.serial('an empty disk is formatted where the policy says so, and opens with its key from then on', async (t) => {
  const { platform, mount, give } = setUp()
  await t.throwsAsync(mount('db'), { code: 'ERR_VOLUME_DISK' })
  await give({ db: 'block-1' })
  t.is((await mount('db')).source, '/run/caisson/v/2')
  const steps = () => platform.log.filter((step) => /^(?:crypt|run|mount)/.test(step))
  t.deepEqual(steps(), ['crypt volume-db', 'run /usr/sbin/mke2fs', 'mount ext4 /run/caisson/v/2'])
  // Another guest, which may not format, finds the same disk.
  const next = setUp()
  next.platform.disk.set(platform.disk)
  await next.give({ kept: 'block-0' })
  await next.mount('kept')
  t.false(next.platform.log.includes('run /usr/sbin/mke2fs'))
})

test.serial(
  'a disk that is not what it should be is never formatted: empty without leave, other content, another key',
  async (t) => {
    const empty = setUp()
    await empty.give({ kept: 'block-0' })
    await t.throwsAsync(empty.mount('kept'), { code: 'ERR_LUKS_HEADER' })
    const written = setUp()
    written.platform.disk[16 * 1024 * 1024] = 1
    await written.give({ db: 'block-0' })
    await t.throwsAsync(written.mount('db'), { code: 'ERR_LUKS_HEADER' })
    const made = setUp()
    await made.give({ db: 'block-0' })
    await made.mount('db')
    KEY[0] = 255
    const other = setUp()
    other.platform.disk.set(made.platform.disk)
    await other.give({ db: 'block-0' })
    await t.throwsAsync(other.mount('db'), { code: 'ERR_LUKS_KEY' })
    KEY[0] = 0
    t.false(other.platform.log.some((step) => step.startsWith('crypt')))
  },
)
