/**
 * `kill -9` of each process of a Kubernetes pod and its node at each moment of the pod's life. A pod whose machine is gone
 * has ended, and says so; a daemon or a containerd that is gone costs no pod. Afterwards nothing is left on the node.
 */
import { rmSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { type Cluster, startCluster } from '../fixtures/kubernetes/cluster.ts'
import type { KubernetesContainer, KubernetesPod } from '../fixtures/kubernetes/kubelet.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { isUnavailable, retried } from '../fixtures/kubernetes/retries.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'
import { kill } from '../fixtures/kubernetes/victims.ts'

const MACHINE = ['qemu', 'caisson-pod', 'relay'] as const
const TIMEOUT_MS = 1_200_000
const UNKNOWN_EXIT = 255
const KILLED = 137
const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"
const DEAF = "trap '' TERM; echo waiting; while :; do sleep 1; done"
const READ = ['/bin/cat', '/etc/motd']
const POLICY = (image: string): string => `
  - { name: loop, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(LOOP)}], logs: allow, exec: [[/bin/cat, /etc/motd]] }
  - { name: deaf, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(DEAF)}], logs: allow }
`

const scope = new FileScope()
let cluster: Cluster
let count = 0

test.before(async (t) => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(scope, POLICY)
  await cluster.kubelet.pull(cluster.image.reference)
})
test.after.always(() => scope.end())

for (const victim of MACHINE) {
  test.serial(`${victim} is killed while a pod boots: the pod is refused, and nothing is left`, async (t) => {
    t.timeout(TIMEOUT_MS)
    const starting = settle(runPod())
    await booting(t)
    await kill(cluster.containerd, victim)
    t.true((await starting) instanceof Error)
    t.deepEqual(await leftoversAfter(cluster.containerd), [])
  })

  test.serial(`${victim} is killed while a pod pulls: the container is refused, and nothing is left`, async (t) => {
    t.timeout(TIMEOUT_MS)
    const go = cluster.holdNetwork()
    const pod = await runPod()
    const starting = settle(run(pod, 'loop', LOOP))
    await guestAsked(t)
    await kill(cluster.containerd, victim)
    t.true((await starting) instanceof Error)
    go()
    await pod.remove()
    t.deepEqual(await leftoversAfter(cluster.containerd), [])
  })

  test.serial(`${victim} is killed while a container runs: it has ended, and nothing is left`, async (t) => {
    t.timeout(TIMEOUT_MS)
    const pod = await runPod()
    const container = await run(pod, 'loop', LOOP)
    await container.logged(/waiting/)
    await kill(cluster.containerd, victim)
    const { exitCode } = await container.exited()
    // Without a relay containerd itself may be the first to say how it ended.
    t.true(exitCode === UNKNOWN_EXIT || (victim === 'relay' && exitCode === KILLED), String(exitCode))
    await pod.remove()
    t.deepEqual(await leftoversAfter(cluster.containerd), [])
  })

  test.serial(`${victim} is killed while a container is stopped: it ends, and nothing is left`, async (t) => {
    t.timeout(TIMEOUT_MS)
    const pod = await runPod()
    const container = await run(pod, 'deaf', DEAF)
    await container.logged(/waiting/)
    const stopping = settle(container.stop(600))
    await cluster.containerd.logs(/StopContainer for/)
    await kill(cluster.containerd, victim)
    await stopping
    t.is((await container.exited()).state, ContainerState.CONTAINER_EXITED)
    await pod.remove()
    t.deepEqual(await leftoversAfter(cluster.containerd), [])
  })
}

test.serial('the daemon is killed while a pod boots, pulls, runs and stops: the pod lives its life', async (t) => {
  t.timeout(TIMEOUT_MS)
  const go = cluster.holdNetwork()
  const starting = runPod()
  await booting(t)
  await kill(cluster.containerd, 'daemon')
  const pod = await starting
  const creating = run(pod, 'loop', LOOP)
  await guestAsked(t)
  await kill(cluster.containerd, 'daemon')
  go()
  const container = await creating
  await container.logged(/waiting/)
  const stopping = container.stop(600)
  await kill(cluster.containerd, 'daemon')
  await stopping
  t.is((await container.status()).exitCode, 5)
  await pod.remove()
  t.deepEqual(await leftoversAfter(cluster.containerd), [])
})

test.serial('daemon and relay are killed together: the next daemon removes what they left', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { containerd } = cluster
  const pod = await runPod()
  // The test before has restarted the daemon, and the snapshotter with it.
  const container = await retried(() => run(pod, 'loop', LOOP))
  await container.logged(/waiting/)
  await kill(containerd, 'daemon')
  await kill(containerd, 'relay')
  await containerd.startDaemon()
  t.is((await container.exited()).state, ContainerState.CONTAINER_EXITED)
  await pod.remove()
  t.deepEqual(await leftoversAfter(containerd), [])
  await (await retried(runPod)).remove()
})

test.serial('containerd is killed while a pod boots: what was begun is removed when it comes back', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { containerd } = cluster
  const starting = settle(runPod())
  await booting(t)
  await kill(containerd, 'containerd')
  t.true((await starting) instanceof Error)
  await containerd.run()
  await cluster.kubelet.removeAll()
  t.deepEqual(await leftoversAfter(containerd), [])
})

test.serial(
  'containerd is killed while a container is created and while it is removed: both can be done again',
  async (t) => {
    t.timeout(TIMEOUT_MS)
    const { containerd } = cluster
    const go = cluster.holdNetwork()
    const pod = await runPod()
    const creating = settle(run(pod, 'loop', LOOP))
    await guestAsked(t)
    await kill(containerd, 'containerd')
    t.true((await creating) instanceof Error)
    go()
    await containerd.run()
    const again = await pod.run('deaf', cluster.image.reference, { command: ['/bin/sh', '-c', DEAF] })
    await again.logged(/waiting/)
    const removing = settle(pod.remove())
    await kill(containerd, 'containerd')
    await removing
    await containerd.run()
    await cluster.kubelet.removeAll()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)

test.serial(
  'containerd is killed while containers run: they go on, with logs and exec, when it comes back',
  async (t) => {
    t.timeout(TIMEOUT_MS)
    const { containerd } = cluster
    const pod = await runPod()
    const container = await run(pod, 'loop', LOOP)
    await container.logged(/waiting/)
    await kill(containerd, 'containerd')
    await containerd.run()
    t.is((await container.status()).state, ContainerState.CONTAINER_RUNNING)
    t.is((await container.exec(READ)).exitCode, 0)
    await container.stop()
    t.is((await container.status()).exitCode, 5)
    await pod.remove()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)

test.serial('a container that containerd forgets ends, and its place is free', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { containerd } = cluster
  const pod = await runPod()
  const lost = await run(pod, 'loop', LOOP)
  await lost.logged(/waiting/)
  // As a containerd does that comes back without the container's metadata.
  await kill(containerd, 'containerd')
  rmSync(containerd.path(`state/io.containerd.runtime.v2.task/k8s.io/${lost.id}`), { recursive: true })
  await containerd.run()
  // The policy admits one: its place is free when the guest has none any more.
  let attempt = 0
  const wish = { command: ['/bin/sh', '-c', LOOP] }
  const again = await retried(
    () => pod.run('loop', cluster.image.reference, { ...wish, attempt: ++attempt }),
    (error) => isUnavailable(error) || /ERR_POLICY_DENIED/.test(error.message),
  )
  await again.logged(/waiting/)
  await pod.remove()
  t.deepEqual(await leftoversAfter(containerd), [])
})

function runPod(): Promise<KubernetesPod> {
  count++
  return cluster.kubelet.runPod({ name: `pod${count}`, initdata: cluster.initdata })
}

function run(pod: KubernetesPod, name: string, script: string): Promise<KubernetesContainer> {
  return pod.run(name, cluster.image.reference, { command: ['/bin/sh', '-c', script] })
}

/** Resolves when the newest machine's kernel runs. */
async function booting(t: ExecutionContext): Promise<void> {
  t.timeout(TIMEOUT_MS)
  await cluster.containerd.machineAt('kernel')
}

/** Resolves when the guest has been asked for a container, and waits for its registry. */
async function guestAsked(t: ExecutionContext): Promise<void> {
  t.timeout(TIMEOUT_MS)
  await cluster.containerd.logs(/StartContainer for/)
  await cluster.heldConnection()
}

/** The value, or the error: a call that is about to fail has somebody who waits for it. */
function settle<Value>(promise: Promise<Value>): Promise<Value | Error> {
  return promise.catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))))
}
