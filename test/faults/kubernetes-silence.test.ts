/**
 * Machines of pods that live and answer nobody: their monitor is silent, or the way to their guest. Nothing tells such a
 * machine from a slow one but time, so these tests wait for the time limits of calls.
 */
import test from 'ava'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { type Cluster, startCluster } from '../fixtures/kubernetes/cluster.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'
import { silence } from '../fixtures/kubernetes/victims.ts'

const TIMEOUT_MS = 1_800_000
const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"
const READ = ['/bin/cat', '/etc/motd']
const POLICY = (image: string): string =>
  `  - { name: loop, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(LOOP)}], logs: allow, exec: [[/bin/cat, /etc/motd]] }`

const scope = new FileScope()
let cluster: Cluster

test.before(async (t) => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(scope, POLICY)
  await cluster.kubelet.pull(cluster.image.reference)
})
test.after.always(() => scope.end())

for (const victim of ['qemu', 'caisson-pod'] as const) {
  test.serial(`${victim} falls silent while a container runs: requests end, and the pod can be removed`, async (t) => {
    t.timeout(TIMEOUT_MS)
    const { kubelet, containerd, image, initdata } = cluster
    const pod = await kubelet.runPod({ name: `silent-${victim}`, initdata })
    const container = await pod.run('loop', image.reference, { command: ['/bin/sh', '-c', LOOP] })
    await container.logged(/waiting/)
    silence(containerd, victim)
    await t.throwsAsync(container.exec(READ), { message: /DEADLINE|deadline|no answer/ })
    t.is((await container.status()).state, ContainerState.CONTAINER_RUNNING)
    await pod.stop()
    t.is((await container.status()).state, ContainerState.CONTAINER_EXITED)
    await pod.remove()
    t.deepEqual(await leftoversAfter(containerd), [])
  })
}

test.serial('a machine that falls silent while it boots is given up, by the name of its stage', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { kubelet, containerd, initdata } = cluster
  const starting = kubelet.runPod({ name: 'silent-boot', initdata })
  starting.catch(() => undefined)
  await containerd.machineAt('kernel')
  silence(containerd, 'qemu')
  await t.throwsAsync(starting, { message: /ERR_BOOT_STALLED.*kernel/s })
  t.deepEqual(await leftoversAfter(containerd), [])
})
