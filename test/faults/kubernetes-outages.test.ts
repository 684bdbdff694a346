/** Verifier and registry away, for a while or for longer, while a pod of Kubernetes needs them. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { askDaemon } from '#host-shim/node/ask-daemon'
import type { PullState } from '#host-shim/node/pod-progress'
import type { PodReport } from '#host-shim/node/pod-report'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { AttestedNode } from '../fixtures/kubernetes/attested.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { FileScope } from '../fixtures/kubernetes/scope.ts'

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))
const TIMEOUT_MS = 1_800_000
/** How long a server is away: several of the guest's attempts. */
const OUTAGE_MS = 6_000

const scope = new FileScope()
let node: AttestedNode

test.before(async (t) => {
  t.timeout(TIMEOUT_MS)
  node = await AttestedNode.start(scope)
})
test.beforeEach(async () => {
  await node.doors.verifier.open()
  await node.doors.registry.open()
})
test.after.always(() => scope.end())

test.serial('a verifier that is away while a pod attests, and comes back, is found again', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { doors, containerd, image } = node
  await doors.verifier.shut()
  const starting = node.runPod()
  starting.catch(() => undefined)
  await containerd.machineAt('agent')
  await setTimeout(OUTAGE_MS)
  await doors.verifier.open()
  const pod = await starting
  const web = await pod.run('web', image)
  await web.logged(/served/)
  await pod.remove()
  t.deepEqual(await leftoversAfter(containerd), [])
})

test.serial(
  'a verifier that stays away: the pod is refused by that name, nothing is left, the next one runs',
  async (t) => {
    t.timeout(TIMEOUT_MS)
    const { doors, containerd } = node
    await doors.verifier.shut()
    await t.throwsAsync(node.runPod(), { message: /ERR_VERIFIER_UNAVAILABLE/ })
    t.deepEqual(await leftoversAfter(containerd), [])
    await doors.verifier.open()
    await (await node.runPod()).remove()
  },
)

test.serial('a registry that goes away within a layer, and comes back, is gone on with', async (t) => {
  t.timeout(TIMEOUT_MS)
  const { doors, containerd, image } = node
  const pod = await node.runPod()
  const running = pod.run('web', image)
  running.catch(() => undefined)
  while (((await pullOf(pod.id))?.doneBytes ?? 0) === 0) await setTimeout(20)
  await doors.registry.shut()
  await setTimeout(OUTAGE_MS)
  t.false((await pullOf(pod.id))?.done)
  t.regex(await listedPods(), /default +pod\d+ +attested +web +pulling \d+ %/)
  await doors.registry.open()
  await (await running).logged(/served/)
  await pod.remove()
  t.deepEqual(await leftoversAfter(containerd), [])
})

test.serial(
  'a registry that stays away: the container is refused by that name, the pod lives, and it can be tried again',
  async (t) => {
    t.timeout(TIMEOUT_MS)
    const { doors, containerd, image } = node
    await doors.registry.shut()
    const pod = await node.runPod()
    await t.throwsAsync(pod.run('web', image), { message: /ERR_HTTP_(?:CONNECT|CUT)/ })
    t.is((await pod.status())?.state, 0)
    await doors.registry.open()
    const web = await pod.run('web', image, { attempt: 1 })
    await web.logged(/served/)
    t.is((await web.status()).state, ContainerState.CONTAINER_RUNNING)
    await pod.remove()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)

test.serial(
  'a registry that goes away within a layer and stays away: the refusal says how far the pull was',
  async (t) => {
    t.timeout(TIMEOUT_MS)
    const { doors, containerd, image } = node
    const pod = await node.runPod()
    const running = pod.run('web', image)
    running.catch(() => undefined)
    while (((await pullOf(pod.id))?.doneBytes ?? 0) === 0) await setTimeout(20)
    await doors.registry.shut()
    await t.throwsAsync(running, {
      message: /ERR_HTTP_\w+.*; its image was pulled as far as [\d.]+ of [\d.]+ MiB, 4 layers/s,
    })
    await doors.registry.open()
    await pod.remove()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)

/** What people see. */
async function listedPods(): Promise<string> {
  const words = [MAIN, 'ps', '--pods', '--socket', join(node.containerd.state, 'node.sock')]
  const { stdout } = await promisify(execFile)(process.execPath, words)
  return stdout
}

/** What the node's daemon tells of the pod's only pull. */
async function pullOf(podId: string): Promise<PullState | undefined> {
  const pods = JSON.parse(await askDaemon(join(node.containerd.state, 'node.sock'), 'report')) as readonly PodReport[]
  return pods.find(({ id }) => id === podId)?.pulls[0]
}
