/** The host has no room left for what its pods write: they wait, and the daemon says so and goes on. */
import test from 'ava'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { type Cluster, startCluster } from '../fixtures/kubernetes/cluster.ts'
import type { KubernetesPod } from '../fixtures/kubernetes/kubelet.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'
import { kill } from '../fixtures/kubernetes/victims.ts'

const TIMEOUT_MS = 1_800_000
const SMALL_MIB = 48
const LARGE_MIB = 512
const FILL = 'echo begin; dd if=/dev/zero of=/file bs=1M count=96 conv=fsync 2>/dev/null && echo written'
const POLICY = (image: string): string =>
  `  - { name: fill, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(FILL)}], user: "0", logs: allow }`
const FULL = /a disk of this machine is full/

const scope = new FileScope()
let cluster: Cluster

test.before(async (t) => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(scope, POLICY, { stateMib: SMALL_MIB })
  await cluster.kubelet.pull(cluster.image.reference)
})
test.after.always(() => scope.end())

test.serial(
  'a container writes more than the host has room for: it waits, no pod begins, and it goes on when there is room',
  async (t) => {
    t.timeout(TIMEOUT_MS)
    const { kubelet, containerd, initdata } = cluster
    const pod = await kubelet.runPod({ name: 'waits', initdata })
    const full = containerd.daemonLogs(FULL)
    const fill = await begin(pod)
    await full
    await t.throwsAsync(kubelet.runPod({ name: 'none', initdata }), { message: /ERR_NODE_STATE|ENOSPC|no space/i })
    containerd.resizeState(LARGE_MIB)
    t.is((await fill.exited()).exitCode, 0)
    t.deepEqual(fill.log(), ['stdout F begin', 'stdout F written'])
    await pod.remove()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)

test.serial('a daemon that comes while a pod waits for room goes on with it', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { kubelet, containerd, initdata } = cluster
  containerd.resizeState(SMALL_MIB)
  const pod = await kubelet.runPod({ name: 'adopted', initdata })
  const full = containerd.daemonLogs(FULL)
  const fill = await begin(pod)
  await full
  await kill(containerd, 'daemon')
  const again = containerd.daemonLogs(FULL)
  await containerd.startDaemon()
  await again
  t.is((await fill.status()).state, ContainerState.CONTAINER_RUNNING)
  containerd.resizeState(LARGE_MIB)
  t.is((await fill.exited()).exitCode, 0)
  t.deepEqual(fill.log(), ['stdout F begin', 'stdout F written'])
  await pod.remove()
  t.deepEqual(await leftoversAfter(containerd), [])
})

test.serial('a pod is removed while the disk is full, by a daemon that lives on, and nothing is left', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { kubelet, containerd, initdata } = cluster
  containerd.resizeState(SMALL_MIB)
  const daemon = await containerd.daemon()
  const pod = await kubelet.runPod({ name: 'removed', initdata })
  const full = containerd.daemonLogs(FULL)
  await begin(pod)
  await full
  await pod.remove()
  t.deepEqual(await leftoversAfter(containerd), [])
  t.deepEqual(await containerd.daemon(), daemon)
  // There is room again.
  await (await kubelet.runPod({ name: 'next', initdata })).remove()
})

async function begin(pod: KubernetesPod) {
  const fill = await pod.run('fill', cluster.image.reference, {
    command: ['/bin/sh', '-c', FILL],
    linux: { $typeName: 'runtime.v1.LinuxContainerConfig', ...ROOT },
  })
  await fill.logged(/begin/)
  return fill
}

const ROOT = {
  securityContext: {
    $typeName: 'runtime.v1.LinuxContainerSecurityContext' as const,
    privileged: false,
    runAsUser: { $typeName: 'runtime.v1.Int64Value' as const, value: 0n },
    readonlyRootfs: false,
    supplementalGroups: [],
    noNewPrivs: false,
  },
}
