/** The agent alone dies in a guest that lives, at each moment of a pod: PID 1 ends the guest, and everybody is told why. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { type Cluster, startCluster } from '../fixtures/kubernetes/cluster.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { retried } from '../fixtures/kubernetes/retries.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'
import { PodFolder } from '../fixtures/kubernetes/volume-folder.ts'
import { anotherRelease } from './fixtures/release.ts'

const TIMEOUT_MS = 1_800_000
const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"
const END = ['/bin/mkdir', '/tmp/end-agent']
const UNKNOWN_EXIT = 255
/** Only a guest that was built for it dies, and when its policy says so. */
const MORTAL = `
import { readdirSync } from 'node:fs'
const CONTAINERS = '/run/caisson/containers'
const POLICY = readFileSync('/run/caisson/initdata.toml', 'utf8')
const die = () => process.kill(process.pid, 'SIGKILL')
function names(path: string): readonly string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}
let ids: readonly string[] = []
if (POLICY.includes('dies at boot')) die()
setInterval(() => {
  // The only connections of this guest are those of its pulls; they wait, so it is in the midst of one.
  const connections = readFileSync('/proc/net/tcp', 'utf8').trim().split('\\n').length - 1
  if (POLICY.includes('dies at pull') && connections > 0) setTimeout(die, 1500)
  const now = names(CONTAINERS)
  if (POLICY.includes('dies at delete') && ids.some((id) => !now.includes(id))) die()
  ids = now
  for (const id of ids) if (names(\`\${CONTAINERS}/\${id}/rootfs/tmp\`).includes('end-agent')) die()
}, 20).unref()
`

const policy = (image: string): string => `
  - name: loop
    image: ${image}
    args: [/bin/sh, -c, ${JSON.stringify(LOOP)}]
    logs: allow
    terminationMessage: /dev/termination-log
    exec: [${JSON.stringify(END)}]`

const scope = new FileScope()
let cluster: Cluster

test.before(async (t) => {
  t.timeout(TIMEOUT_MS)
  cluster = await startCluster(scope, policy)
  const release = await anotherRelease(join(cluster.folder, 'release'), MORTAL)
  await release.buildGuest()
  await cluster.kubelet.pull(cluster.image.reference)
  await cluster.containerd.upgradeDaemon(release.main)
})
test.after.always(() => scope.end())

/** Initdata of a guest whose agent dies at this moment. */
function mortal(moment: 'boot' | 'pull' | 'delete'): Uint8Array {
  return cluster.initdataOf(`${policy(cluster.image.reference)}\n  # Its agent dies at ${moment}.`)
}

test.serial(
  'the agent is killed while a container runs: the pod has ended, its containers say why, and nothing is left',
  async (t) => {
    t.timeout(TIMEOUT_MS)
    const { kubelet, containerd, image, initdata } = cluster
    // The snapshotter goes and comes with the daemon.
    const pod = await retried(() => kubelet.runPod({ name: 'mortal', initdata }))
    const message = new PodFolder(containerd.path('kubelet'), 'uid-mortal').terminationLog('loop')
    const mounts = [
      {
        $typeName: 'runtime.v1.Mount' as const,
        containerPath: '/dev/termination-log',
        hostPath: message,
        readonly: false,
      },
    ]
    const container = await pod.run('loop', image.reference, { command: ['/bin/sh', '-c', LOOP], mounts })
    await container.logged(/waiting/)
    // Whether the answer still comes out, nobody knows.
    await container.exec(END).catch(() => undefined)
    t.is((await container.exited()).exitCode, UNKNOWN_EXIT)
    t.regex(readFileSync(message, 'utf8'), /^the machine of the pod has ended: the agent in its guest died/)
    await pod.ended()
    t.regex(readFileSync(containerd.path('node.log'), 'utf8'), /its machine has ended: the agent in its guest died/)
    await pod.remove()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)

test.serial('the agent is killed while the guest boots: the pod does not come up, and nothing is left', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { kubelet, containerd } = cluster
  const starting = retried(() => kubelet.runPod({ name: 'boot', initdata: mortal('boot') }))
  await t.throwsAsync(starting, { message: /ERR_VM_EXITED.*agent-died/s })
  t.deepEqual(await leftoversAfter(containerd), [])
})

test.serial(
  'the agent is killed while it pulls: the container is not made, and whoever asked is told why',
  async (t) => {
    t.timeout(TIMEOUT_MS)
    const { kubelet, containerd, image, holdNetwork } = cluster
    const release = holdNetwork()
    try {
      const command = ['/bin/sh', '-c', LOOP]
      const asking = async (): Promise<unknown> =>
        (await kubelet.runPod({ name: 'pull', initdata: mortal('pull') })).run('loop', image.reference, { command })
      await t.throwsAsync(asking, { message: /ERR_VM_EXITED.*the agent in its guest died/s })
      t.regex(readFileSync(containerd.path('node.log'), 'utf8'), /its machine has ended: the agent in its guest died/)
      await kubelet.removeAll()
      t.deepEqual(await leftoversAfter(containerd), [])
    } finally {
      release()
    }
  },
)

test.serial('the agent is killed while a container is deleted: container and pod go all the same', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { kubelet, containerd, image } = cluster
  const pod = await kubelet.runPod({ name: 'delete', initdata: mortal('delete') })
  const container = await pod.run('loop', image.reference, { command: ['/bin/sh', '-c', LOOP] })
  await container.logged(/waiting/)
  await container.stop()
  t.is((await container.exited()).exitCode, 5)
  await container.remove()
  await pod.ended()
  await pod.remove()
  t.deepEqual(await leftoversAfter(containerd), [])
})
