/** Volumes of Kubernetes pods: folders as the kubelet makes them on the host, and what containers in the guest see. */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { directory, file } from '../component/image/fixtures/image.ts'
import { Int64ValueSchema, LinuxContainerSecurityContextSchema } from '../fixtures/cri/gen/cri_pb.ts'
import { type Cluster, startCluster } from '../fixtures/kubernetes/cluster.ts'
import type { KubernetesContainer } from '../fixtures/kubernetes/kubelet.ts'
import { PodFolder, writeVolume } from '../fixtures/kubernetes/volume-folder.ts'

const SETTINGS = { 'app.yaml': 'mode: fixed\n', 'conf.d/extra': 'nested\n' }

const WRITE = [
  'cat /etc/app/app.yaml /etc/app/conf.d/extra /etc/keys/password /etc/podinfo/labels',
  'ls -a /etc/podinfo',
  'echo x > /etc/app/app.yaml || echo read-only',
  'stat -c "%a %g" /cache /fast',
  'id',
  'dd if=/dev/zero of=/cache/big bs=1M count=12 2>/dev/null || echo cache-full',
  'dd if=/dev/zero of=/fast/big bs=1M count=12 2>/dev/null || echo fast-full',
  'dd if=/dev/zero of=/dev/shm/big bs=1M count=70 2>/dev/null && echo shm-large',
  'echo > /cache/big; echo > /fast/big; echo > /dev/shm/big',
  'mkdir /cache/part; echo kept > /cache/part/file; stat -c %g /cache/part/file',
  'echo shared > /dev/shm/name',
  'echo "it went wrong" > /dev/termination-log',
  'exit 3',
].join('\n')
const DISK = 'echo from the guest > /dev/raw; stat -c "%F" /dev/raw; cat /dev/vda 2>/dev/null || echo no other'
const KEPT = [
  'cat /var/kept/seed; echo changed > /var/kept/seed; cat /var/kept/seed',
  'stat -c "%a %u" /var/kept /var/fresh; echo new > /var/fresh/file; cat /var/fresh/file',
  'echo x > /srv/file || echo read-only root; cat /var/none || echo nothing',
].join('\n')
const LOOP = "trap 'exit 0' TERM; while :; do sleep 1; done"

const shell = (script: string) => ['/bin/sh', '-c', script]
const probe = (...command: readonly string[]) => ({ exec: { command } })
const place = (name: string, mountPath: string, more: object = {}) => ({ name, mountPath, ...more })

/** What a tenant applies; the policy is what `caisson policy generate` makes of it. */
const POD = (image: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'volumes' },
  spec: {
    runtimeClassName: 'caisson',
    automountServiceAccountToken: false,
    securityContext: { fsGroup: 2000 },
    volumes: [
      { name: 'raw', persistentVolumeClaim: { claimName: 'raw' } },
      {
        name: 'settings',
        configMap: {
          name: 'settings',
          items: [
            { key: 'app.yaml', path: 'app.yaml' },
            { key: 'extra', path: 'conf.d/extra' },
          ],
        },
      },
      { name: 'keys', secret: { secretName: 'keys', defaultMode: 288 } },
      { name: 'podinfo', downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] } },
      { name: 'cache', emptyDir: { sizeLimit: '8Mi' } },
      { name: 'fast', emptyDir: { medium: 'Memory', sizeLimit: '8Mi' } },
      { name: 'shm', emptyDir: { medium: 'Memory', sizeLimit: '80Mi' } },
    ],
    containers: [
      {
        name: 'writer',
        image,
        command: shell(WRITE),
        terminationMessagePath: '/dev/termination-log',
        volumeMounts: [
          place('settings', '/etc/app'),
          place('keys', '/etc/keys'),
          place('podinfo', '/etc/podinfo'),
          place('cache', '/cache'),
          place('fast', '/fast'),
          place('shm', '/dev/shm'),
        ],
      },
      {
        name: 'reader',
        image,
        command: shell(LOOP),
        startupProbe: probe('/bin/cat', '/etc/podinfo/labels'),
        livenessProbe: probe('/bin/cat', '/etc/app/app.yaml'),
        readinessProbe: probe('/bin/cat', '/part/file', '/dev/shm/name', '/one'),
        lifecycle: { preStop: probe('/bin/ls', '/etc/podinfo') },
        volumeMounts: [
          place('settings', '/etc/app'),
          place('settings', '/one', { subPath: 'conf.d/extra' }),
          place('podinfo', '/etc/podinfo'),
          place('cache', '/part', { subPath: 'part', readOnly: true }),
          place('cache', '/fresh', { subPath: 'made/here' }),
          place('shm', '/dev/shm'),
        ],
      },
      {
        name: 'linker',
        image,
        command: shell(LOOP),
        lifecycle: { postStart: probe('/bin/ln', '-s', '/etc', '/cache/link') },
        volumeMounts: [place('cache', '/cache')],
      },
      {
        name: 'follower',
        image,
        command: shell(LOOP),
        volumeMounts: [place('cache', '/x', { subPath: 'link/passwd' })],
      },
      {
        name: 'disk',
        image,
        command: shell(DISK),
        securityContext: { runAsUser: 0 },
        volumeDevices: [{ name: 'raw', devicePath: '/dev/raw' }],
      },
      {
        name: 'kept',
        image,
        command: shell(KEPT),
        securityContext: { runAsUser: 0, readOnlyRootFilesystem: true },
        volumeMounts: [place('cache', '/var/none')],
      },
      { name: 'plain', image, command: shell(LOOP) },
    ],
  },
})
const CONFIG_MAP = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'settings' },
  data: { 'app.yaml': SETTINGS['app.yaml'], extra: SETTINGS['conf.d/extra'] },
}
const YAML = (image: string): string =>
  [POD(image), CONFIG_MAP].map((document) => JSON.stringify(document)).join('\n---\n')

/** The choices that the YAML leaves: what the disk is, and which permissions are meant. */
function decided(policy: string): string {
  return policy.replace(/!choose "luks[^"]*"/, 'block').replace(/!choose "permissions[\s\S]*?"(?=[,}\n])/, '"0440"')
}

test.serial(
  'volumes of a pod are what Kubernetes promises, and no more of the host than the policy declares',
  async (t) => {
    const layers = [
      {
        compression: 'gzip' as const,
        entries: [directory('var/kept', 0o750), file('var/kept/seed', 'of the image\n')],
      },
    ]
    const cluster = await startCluster(t, undefined, {
      layers,
      imageVolumes: ['/var/kept/', '/var/fresh', '/var/none'],
    })
    const { kubelet, containerd, folder, image: pushed } = cluster
    const image = pushed.reference
    const initdata = await cluster.generate(YAML(image), decided)
    await kubelet.pull(image)
    const host = new PodFolder(containerd.path('kubelet'), 'uid-volumes')
    const diskFile = join(folder, 'disk')
    const disk = host.disk(t, 'pv', diskFile, 4 * 1024 * 1024)
    const pod = await kubelet.runPod({ name: 'volumes', initdata })
    const settings = host.volume('configmap', 'settings')
    const podinfo = host.volume('downward-api', 'podinfo')
    writeVolume(settings, 'v1', SETTINGS)
    writeVolume(podinfo, 'v1', { labels: 'app="one"\n' })
    const keys = host.volume('secret', 'keys')
    writeVolume(keys, 'v1', { password: 'hunter2\n' })
    const cache = host.volume('empty-dir', 'cache')
    const [fast, shm] = [host.memory(t, 'fast'), host.memory(t, 'shm')]
    const message = host.terminationLog('writer')
    const command = (script: string) => ({ command: ['/bin/sh', '-c', script] })

    const writer = await pod.run('writer', image, {
      ...command(WRITE),
      ...groups(2000n),
      mounts: [
        mount('/etc/app', settings, true),
        mount('/etc/keys', keys, true),
        mount('/etc/podinfo', podinfo, true),
        mount('/cache', cache),
        mount('/fast', fast),
        mount('/dev/shm', shm),
        mount('/dev/termination-log', message),
      ],
    })
    t.is((await writer.exited()).exitCode, 3)
    const lines = writer.log().map((line) => line.replace(/^stdout F /, ''))
    for (const line of [
      ...['mode: fixed', 'nested', 'hunter2', 'app="one"', '..data', 'labels', 'read-only'],
      ...['2777 2000', 'cache-full', 'shm-large', '2000'],
    ]) {
      t.true(lines.includes(line), `${line} in ${lines.join('\n')}`)
    }
    t.true(lines.includes('fast-full'), 'memory has a limit')
    t.regex(lines.join('\n'), /groups=.*2000/)
    // The kubelet reads it, and shows it as the container's message.
    t.is(readFileSync(message, 'utf8'), 'it went wrong\n')

    const reader = await pod.run('reader', image, {
      ...command(LOOP),
      ...groups(2000n),
      mounts: [
        mount('/etc/app', settings, true),
        mount('/one', host.subPath('settings', 'reader', 1), true),
        mount('/etc/podinfo', podinfo, true),
        mount('/part', host.subPath('cache', 'reader', 3), true),
        mount('/fresh', host.subPath('cache', 'reader', 4)),
        mount('/dev/shm', shm),
      ],
    })
    t.is(await output(reader, '/bin/cat', '/part/file', '/dev/shm/name', '/one'), 'kept\nshared\nnested\n')

    writeVolume(podinfo, 'v2', { labels: 'app="two"\n', annotations: 'a="b"\n' })
    await until(async () => (await output(reader, '/bin/cat', '/etc/podinfo/labels')) === 'app="two"\n')
    t.is(await output(reader, '/bin/ls', '/etc/podinfo'), 'annotations\nlabels\n')
    // What the policy binds by its digest stays, whatever the host writes.
    writeVolume(settings, 'v2', { 'app.yaml': 'mode: other\n' })
    await until(async () => /volume settings keeps its content: .*ERR_POLICY_DENIED/.test(daemonLog(cluster)))
    t.is(await output(reader, '/bin/cat', '/etc/app/app.yaml'), 'mode: fixed\n')

    // A link in a volume leads nowhere out of it.
    const linker = await pod.run('linker', image, { ...command(LOOP), mounts: [mount('/cache', cache)] })
    await linker.exec(['/bin/ln', '-s', '/etc', '/cache/link'])
    const linked = { ...command(LOOP), mounts: [mount('/x', host.subPath('cache', 'follower', 0))] }
    await t.throwsAsync(pod.run('follower', image, linked), { message: /ERR_VOLUME_PATH/ })

    // Volumes of the image: with its content, writable, anew for each container; what the pod mounts there comes first.
    for (const attempt of [0, 1]) {
      const asRoot = groups()
      asRoot.linux.securityContext.runAsUser = create(Int64ValueSchema, { value: 0n })
      const mounts = [mount('/var/none', cache)]
      const kept = await pod.run('kept', image, { ...command(KEPT), ...asRoot, mounts, attempt })
      t.is((await kept.exited()).exitCode, 0)
      const said = kept.log().flatMap((line) => (line.startsWith('stdout') ? [line.replace('stdout F ', '')] : []))
      const root = ['755 0', 'new', 'read-only root', 'nothing']
      t.deepEqual(said.slice(-7), ['of the image', 'changed', '750 0', ...root])
      await kept.remove()
    }

    // A block device appears where the pod wants it, and no other of the guest's.
    const device = {
      $typeName: 'runtime.v1.Device' as const,
      containerPath: '/dev/raw',
      hostPath: disk,
      permissions: 'rwm',
    }
    const root = { ...groups(), command: ['/bin/sh', '-c', DISK], devices: [device] }
    root.linux.securityContext.runAsUser = create(Int64ValueSchema, { value: 0n })
    const writes = await pod.run('disk', image, root)
    t.is((await writes.exited()).exitCode, 0)
    t.deepEqual(writes.log().slice(0, 2), ['stdout F block special file', 'stdout F no other'])
    t.is(readFileSync(disk).subarray(0, 15).toString(), 'from the guest\n')
    const foreign = [{ ...device, containerPath: '/dev/foreign', hostPath: '/dev/null' }]
    await t.throwsAsync(pod.run('plain', image, { ...command(LOOP), devices: foreign, attempt: 3 }), {
      message: /ERR_MOUNT_UNSUPPORTED: \/dev\/foreign is a device of the host/,
    })

    // What shares a file system of the host is refused with place, cause and remedy; what is not declared, by the policy.
    const asked = (path: string, source: string) => ({ ...command(LOOP), mounts: [mount(path, source)] })
    mkdirSync(join(folder, 'host'), { recursive: true })
    await t.throwsAsync(pod.run('plain', image, asked('/host', join(folder, 'host'))), {
      message: /ERR_MOUNT_UNSUPPORTED: \/host is a path of the host.*would share a file system.*Use an emptyDir/s,
    })
    const share = { ...asked('/pv', host.volume('csi', 'pv')), attempt: 1 }
    await t.throwsAsync(pod.run('plain', image, share), { message: /kubernetes\.io\/csi.*volumeMode: Block/s })
    const stranger = host.volume('configmap', 'stranger')
    writeVolume(stranger, 'v1', { a: 'b' })
    const undeclared = { ...asked('/stranger', stranger), attempt: 2 }
    await t.throwsAsync(pod.run('plain', image, undeclared), { message: /ERR_POLICY_DENIED/ })
    await pod.remove()
  },
)

async function output(container: KubernetesContainer, ...args: string[]): Promise<string> {
  return Buffer.from((await container.exec(args)).stdout).toString()
}

/** The daemon's part, whichever of its two logs it writes to. */
function daemonLog({ containerd }: Cluster): string {
  return readFileSync(containerd.path('node.log'), 'utf8')
}

async function until(what: () => Promise<boolean>): Promise<void> {
  for (
    const deadline = Date.now() + 120_000;
    !(await what());
    await new Promise((resolve) => setTimeout(resolve, 200))
  ) {
    if (Date.now() > deadline) throw new Error('it did not come about')
  }
}

function mount(containerPath: string, hostPath: string, readonly = false) {
  return { $typeName: 'runtime.v1.Mount' as const, containerPath, hostPath, readonly }
}

function groups(...supplementalGroups: bigint[]) {
  return {
    linux: {
      $typeName: 'runtime.v1.LinuxContainerConfig' as const,
      securityContext: create(LinuxContainerSecurityContextSchema, { supplementalGroups }),
    },
  }
}
