/** The agent alone dies in a guest that lives: PID 1 ends the guest, and everybody is told why. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { retried } from '../fixtures/kubernetes/retries.ts'
import { PodFolder } from '../fixtures/kubernetes/volume-folder.ts'
import { anotherRelease } from './fixtures/release.ts'

const LOOP = 'echo waiting; while :; do sleep 1; done'
const END = ['/bin/mkdir', '/tmp/end-agent']
const UNKNOWN_EXIT = 255
/** Only a guest that was built for it dies on demand. */
const MORTAL = `
import { readdirSync } from 'node:fs'
const CONTAINERS = '/run/caisson/containers'
function names(path: string): readonly string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}
setInterval(() => {
  for (const id of names(CONTAINERS)) {
    if (names(\`\${CONTAINERS}/\${id}/rootfs/tmp\`).includes('end-agent')) process.kill(process.pid, 'SIGKILL')
  }
}, 100).unref()
`

test.serial(
  'the agent is killed in its guest: the pod has ended, its containers say why, and nothing is left',
  async (t) => {
    t.timeout(1_800_000)
    const policy = (image: string): string => `
  - name: loop
    image: ${image}
    args: [/bin/sh, -c, ${JSON.stringify(LOOP)}]
    logs: allow
    terminationMessage: /dev/termination-log
    exec: [${JSON.stringify(END)}]`
    const { kubelet, containerd, folder, image, initdata } = await startCluster(t, policy)
    const release = await anotherRelease(join(folder, 'release'), MORTAL)
    await release.buildGuest()
    await kubelet.pull(image.reference)
    await containerd.upgradeDaemon(release.main)
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
