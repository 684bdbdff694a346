/** What the kubelet gives containers to mount: a bundle with a mount of each kind, in the form of those that containerd writes, and folders laid out as the kubelet does. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { parseBundle } from '#host-shim/node/bundle'
import { mountedVolumes } from '#host-shim/node/container-request'
import { GuestRefusalError } from '#host-shim/pod/guest-refusal'
import { writeTerminationMessage } from '#host-shim/volumes/termination-message'
import { messagesOf, VolumeFeed } from '#host-shim/volumes/volume-feed'
import { readVolumeFiles } from '#host-shim/volumes/volume-files'
import { VolumeKind } from '#protocol/gen/agent_pb'
import { rpcStatus } from '#protocol/ttrpc/status'
import { MAX_VOLUME_BYTES } from '#protocol/volume-content'
import { writeVolume } from '../../fixtures/kubernetes/volume-folder.ts'

const POD = '/var/lib/kubelet/pods/0f6c1e1c-8e0b-4d0e-9a35-1d1f7ed3c1f5'
const BUNDLE = readFileSync(new URL('kubelet-mounts.json', import.meta.url), 'utf8')
const isTmpfs = async (path: string) => path.endsWith('/memory')

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'volumes-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

test('mounts that the kubelet and containerd wrote become volumes of a kind, and the guest’s own files are left out', async (t) => {
  const { mounts } = parseBundle(BUNDLE)
  const volumes = await mountedVolumes(mounts, isTmpfs)
  const at = (destination: string) => volumes.find((volume) => volume.destination === destination)
  t.like(at('/cache'), { kind: 'scratch', name: 'cache', readOnly: false, content: undefined })
  t.like(at('/fast'), { kind: 'tmpfs', name: 'memory', content: undefined })
  t.like(at('/dev/shm'), { kind: 'scratch', name: 'shm' })
  t.like(at('/etc/app'), { kind: 'config-map', name: 'settings', readOnly: true })
  t.like(at('/etc/keys'), { kind: 'secret', name: 'keys' })
  t.like(at('/etc/podinfo'), { kind: 'downward-api', name: 'podinfo' })
  t.like(at('/etc/all'), { kind: 'projected', name: 'all' })
  t.is(at('/etc/all')?.content?.directory, `${POD}/volumes/kubernetes.io~projected/all`)
  // Its name ends differently in every pod.
  t.like(at('/var/run/secrets/kubernetes.io/serviceaccount'), { kind: 'projected', name: 'kube-api-access' })
  t.is(volumes.length, 8)
})

test('a part of a volume is told by the volume’s name and the kind that the pod’s folder shows', async (t) => {
  const pod = join(folder(t), 'pods/u')
  mkdirSync(join(pod, 'volumes/kubernetes.io~configmap/settings'), { recursive: true })
  const mount = { destination: '/etc/one', type: 'bind', options: ['rbind', 'ro'] }
  const [volume] = await mountedVolumes([{ ...mount, source: `${pod}/volume-subpaths/settings/web/0` }], isTmpfs)
  t.like(volume, {
    kind: 'config-map',
    name: 'settings',
    content: { directory: join(pod, 'volumes/kubernetes.io~configmap/settings') },
  })
  const place = { ...mount, destination: '/etc/hosts', source: `${pod}/volume-subpaths/settings/web/1` }
  t.like((await mountedVolumes([place], isTmpfs))[0], { kind: 'config-map', destination: '/etc/hosts' })
  const other = mountedVolumes([{ ...mount, source: `${pod}/volume-subpaths/gone/web/0` }], isTmpfs)
  await t.throwsAsync(other, { code: 'ERR_MOUNT_UNSUPPORTED' })
})

for (const [what, source] of Object.entries({
  'a directory of the host (hostPath)': '/etc',
  'a socket of the host (hostPath)': '/run/containerd/containerd.sock',
  'a file system of a CSI driver': `${POD}/volumes/kubernetes.io~csi/pvc-1/mount`,
  'a network file system': `${POD}/volumes/kubernetes.io~nfs/share`,
  'a share of CIFS by a FlexVolume driver': `${POD}/volumes/fstab~cifs/share`,
  'a file system in user space (FUSE)': `${POD}/volumes/kubernetes.io~glusterfs/share`,
  'a local volume': `${POD}/volumes/kubernetes.io~local-volume/disk`,
  'something below an emptyDir that is no volume': `${POD}/volumes/kubernetes.io~empty-dir/cache/../../../../etc`,
})) {
  test(`${what} is refused with place, cause and remedy`, async (t) => {
    const mounts = [{ destination: '/host', source, type: 'bind', options: [] }]
    const error = await t.throwsAsync(mountedVolumes(mounts, isTmpfs), { code: 'ERR_MOUNT_UNSUPPORTED' })
    t.regex(error?.message ?? '', /^\/host is .*share a file system of the host/)
    t.regex(error !== undefined && 'hint' in error ? String(error.hint) : '', /Use an emptyDir/)
  })
}

test('a directory of the host is refused also where the guest has one of its own', async (t) => {
  for (const destination of ['/dev/shm', '/run', '/etc/hosts', '/sys/fs/cgroup']) {
    const mounts = [{ destination, source: '/srv/shared', type: 'bind', options: ['rbind'] }]
    await t.throwsAsync(mountedVolumes(mounts, isTmpfs), { code: 'ERR_MOUNT_UNSUPPORTED' }, destination)
  }
})

test('the files of a volume are those that are current, and no link is followed', async (t) => {
  const directory = folder(t)
  writeVolume(directory, 'v1', { a: 'old', gone: 'x' })
  writeVolume(directory, 'v2', { a: 'new', 'conf.d/b': 'two' })
  symlinkSync('/etc/passwd', join(directory, '..v2', 'stolen'))
  const files = await readVolumeFiles(directory)
  t.deepEqual(
    files.map(({ path, content }) => [path, Buffer.from(content).toString()]),
    [
      ['a', 'new'],
      ['conf.d/b', 'two'],
    ],
  )
})

test('a volume of an object that does not exist is empty; one that is too large is refused', async (t) => {
  const directory = folder(t)
  t.deepEqual(await readVolumeFiles(directory), [])
  writeVolume(directory, 'v1', { a: 'x'.repeat(MAX_VOLUME_BYTES), b: 'y' })
  await t.throwsAsync(readVolumeFiles(directory), { code: 'ERR_VOLUME_TOO_LARGE' })
})

test('large files travel in pieces, small ones together, and come out as they went in', (t) => {
  const large = { path: 'large', content: new Uint8Array(500_000).map((_, index) => index % 251) }
  const small = ['a', 'b', 'empty'].map((path) => ({ path, content: new Uint8Array(path === 'empty' ? 0 : 3) }))
  const messages = messagesOf([...small, large])
  t.true(
    messages.every(
      ({ files = [] }) => files.reduce((sum, { content }) => sum + (content?.byteLength ?? 0), 0) < 200_000,
    ),
  )
  const pieces = messages.flatMap(({ files = [] }) => files)
  t.deepEqual(
    pieces.map(({ path }) => path).filter((path) => path !== ''),
    ['a', 'b', 'empty', 'large'],
  )
  const from = pieces.findIndex(({ path }) => path === 'large')
  t.deepEqual(
    Buffer.concat(pieces.slice(from).map(({ content }) => content ?? new Uint8Array())),
    Buffer.from(large.content),
  )
})

function feed(t: ExecutionContext) {
  const sent: unknown[] = []
  const log: string[] = []
  const answer: { error: Error | undefined } = { error: undefined }
  const volumes = new VolumeFeed({
    send: async (messages) => {
      sent.push([...messages])
      if (answer.error !== undefined) throw answer.error
    },
    log: (line) => log.push(line),
  })
  t.teardown(() => volumes[Symbol.dispose]())
  return { volumes, sent, log, answer }
}

const DENIED = new GuestRefusalError('ERR_POLICY_DENIED', rpcStatus('permissionDenied', 'ERR_POLICY_DENIED'), undefined)

async function until(t: ExecutionContext, what: () => boolean): Promise<void> {
  for (let round = 0; round < 3000 && !what(); round++) await new Promise((resolve) => setTimeout(resolve, 20))
  t.true(what())
}

test('a volume is brought once for all containers, and again when the kubelet has replaced it', async (t) => {
  const directory = folder(t)
  writeVolume(directory, 'v1', { a: 'one' })
  const { volumes, sent } = feed(t)
  const volume = { kind: 'config-map', name: 'settings', directory } as const
  await volumes.add(volume)
  await volumes.add(volume)
  t.deepEqual(sent, [
    [
      { kind: VolumeKind.CONFIG_MAP, name: 'settings' },
      { files: [{ path: 'a', content: new Uint8Array([111, 110, 101]) }] },
    ],
  ])
  writeVolume(directory, 'v2', { a: 'two' })
  await until(t, () => sent.length === 2)
  t.regex(JSON.stringify(sent[1]), /"0":116,"1":119,"2":111/)
})

test('a content that the policy denies stops the container that needs it, and is not offered again as a change', async (t) => {
  const directory = folder(t)
  writeVolume(directory, 'v1', { a: 'one' })
  const { volumes, sent, log, answer } = feed(t)
  const volume = { kind: 'secret', name: 'keys', directory } as const
  answer.error = DENIED
  await t.throwsAsync(volumes.add(volume), { code: 'ERR_POLICY_DENIED' })
  await t.throwsAsync(volumes.add(volume), { code: 'ERR_POLICY_DENIED' })
  answer.error = undefined
  await volumes.add(volume)
  answer.error = DENIED
  writeVolume(directory, 'v2', { a: 'two' })
  await until(t, () => log.some((line) => line.includes('keeps its content')))
  const before = sent.length
  // Another container of the pod starts with the content that there is.
  await volumes.add(volume)
  t.is(sent.length, before)
})

test('last words go into the kubelet’s file, and nowhere when there is none', async (t) => {
  const directory = join(folder(t), 'pods/u/containers/web')
  mkdirSync(directory, { recursive: true })
  const source = join(directory, '0a1b2c3d')
  writeFileSync(source, 'older and longer')
  await writeTerminationMessage([{ source: '/etc' }, { source }], new TextEncoder().encode('bye'))
  t.is(readFileSync(source, 'utf8'), 'bye')
  await writeTerminationMessage([{ source: '/etc' }], new TextEncoder().encode('bye'))
})
