/** Pods through a real containerd: the test acts as the kubelet over CRI, the runtime handler is `caisson`. */
import test, { type ExecutionContext } from 'ava'
import { findPodProcesses } from '#host-shim/pod/process-identity'
import type { Release } from '../component/node-install/containerds.ts'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { type Cluster, startCluster } from '../fixtures/kubernetes/cluster.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'

const scope = new FileScope()
const clusters = new Map<Release, Promise<Cluster>>()
test.after.always(() => scope.end())

/** One for each release, started when the first test needs it. */
function clusterOf(release: Release): Promise<Cluster> {
  const known = clusters.get(release)
  if (known !== undefined) return known
  const made = startCluster(scope, undefined, { release }).then(async (cluster) => {
    return { ...cluster, initdata: await cluster.generate(JSON.stringify(POD(cluster.image.reference))) }
  })
  clusters.set(release, made)
  return made
}

test.serial('a pod runs, logs, is looked into and ends as with any other runtime', (t) => lifeOfPod(t, '1.6'))

async function lifeOfPod(t: ExecutionContext, release: Release): Promise<void> {
  const { kubelet, containerd, image: pushed, initdata } = await clusterOf(release)
  const image = pushed.reference
  const layers = pushed.layers.map(({ digest }) => digest)
  await kubelet.pull(image)
  // Manifest and configuration, and no layer.
  t.deepEqual(
    layers.filter((digest) => containerd.hostBlobs().includes(digest)),
    [],
  )
  const pod = await kubelet.runPod({ name: 'first', initdata })
  t.is((await pod.status())?.state, 0)
  const once = await pod.run('once', image)
  const ended = await once.exited()
  t.is(ended.exitCode, 7)
  t.deepEqual(once.log().toSorted(), ['stderr F err', 'stdout F out'])

  const shell = await pod.run('shell', image, { command: ['/bin/sh', '-c', LOOP] })
  t.is((await shell.status()).state, ContainerState.CONTAINER_RUNNING)
  await shell.logged(/waiting/)
  const { stdout, exitCode } = await shell.exec(['/bin/cat', '/etc/motd'])
  t.is(Buffer.from(stdout).toString(), 'top layer\n')
  t.is(exitCode, 0)
  await t.throwsAsync(shell.exec(['/bin/ls']), { message: /ERR_POLICY_DENIED/ })
  await shell.stop()
  t.is((await shell.status()).exitCode, 5)
  await shell.remove()
  await once.remove()
  await pod.remove()
  t.deepEqual(
    layers.filter((digest) => containerd.hostBlobs().includes(digest)),
    [],
  )
}

test.serial('a pod of another runtime runs beside, from layers that this machine fetched', async (t) => {
  const { kubelet, containerd, image, other, lower, same } = await clusterOf('1.6')
  await kubelet.pull(image.reference)
  await kubelet.pull(other.reference)
  t.true(other.layers.every(({ digest }) => containerd.hostBlobs().includes(digest)))
  const pod = await kubelet.runPod({ name: 'beside', handler: 'runc' })
  const container = await pod.run('plain', other.reference)
  t.is((await container.exited()).exitCode, 7)
  t.deepEqual(container.log().toSorted(), ['stderr F err', 'stdout F out'])
  // Its layers are the lowest ones of the guests' image, so there is none of them here, and containerd takes them for known.
  await kubelet.pull(lower.reference)
  const named = new RegExp(`no layer of ${RegExp.escape(lower.reference)}: .*--guest-image`)
  await t.throwsAsync(pod.run('holes', lower.reference), { message: named })
  // All its layers are those of the guests' image: its root would be empty, so it is refused, and by what containerd knows of it.
  await kubelet.pull(same.reference)
  const unfetched = new RegExp(`no layer of ${RegExp.escape(same.reference)}: .*only guests fetch.*pull this one first`)
  await t.throwsAsync(pod.run('empty', same.reference), { message: unfetched })
  await pod.remove()
})

test.serial('a daemon that is killed while pods run loses no request, no output and no exit code', (t) =>
  killedDaemon(t, '1.6'),
)
test.serial('containerd 1.7 runs a pod from an image whose layers it never fetched', (t) => lifeOfPod(t, '1.7'))
test.serial('containerd 2 runs a pod from an image whose layers it never fetched', (t) => lifeOfPod(t, '2'))
test.serial('on containerd 2 as well, a daemon that is killed loses no request, no output and no exit code', (t) =>
  killedDaemon(t, '2'),
)

async function killedDaemon(t: ExecutionContext, release: Release): Promise<void> {
  const { kubelet, containerd, image: pushed, initdata } = await clusterOf(release)
  const image = pushed.reference
  await kubelet.pull(image)
  const pod = await kubelet.runPod({ name: 'survivor', initdata })
  const ticks = await pod.run('ticks', image, { command: ['/bin/sh', '-c', TICKS] })
  await ticks.logged(/tick 2/)
  const first = await containerd.daemon()
  await containerd.endDaemon('SIGKILL')
  // Nobody decides now: the request waits for the daemon that the pod's own process starts.
  const { stdout, exitCode } = await ticks.exec(['/bin/cat', '/etc/motd'])
  t.is(Buffer.from(stdout).toString(), 'top layer\n')
  t.is(exitCode, 0)
  const second = await containerd.daemon()
  t.truthy(second)
  t.not(second?.pid, first?.pid)
  // Again, and this time the container may end before somebody looks.
  await containerd.endDaemon('SIGKILL')
  t.is((await ticks.exited()).exitCode, 9)
  t.deepEqual(
    ticks.log(),
    Array.from({ length: 30 }, (_, index) => `stdout F tick ${index}`),
  )
  await pod.remove()
  t.deepEqual(await findPodProcesses(containerd.state), [])
}

const TICKS = 'i=0; while [ $i -lt 30 ]; do echo tick $i; i=$((i+1)); sleep 1; done; exit 9'
const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"

const probe = { exec: { command: ['/bin/cat', '/etc/motd'] } }

/** What a tenant applies; the policy is what `caisson policy generate` makes of it. */
const POD = (image: string) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'first' },
  spec: {
    runtimeClassName: 'caisson',
    automountServiceAccountToken: false,
    containers: [
      { name: 'once', image },
      { name: 'shell', image, command: ['/bin/sh', '-c', LOOP], readinessProbe: probe },
      { name: 'ticks', image, command: ['/bin/sh', '-c', TICKS], livenessProbe: probe },
    ],
  },
})
