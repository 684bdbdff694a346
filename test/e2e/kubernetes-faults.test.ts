/** A few faults of a node with pods; test/faults has each process at each moment. */
import test from 'ava'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { kill } from '../fixtures/kubernetes/victims.ts'

const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"
const READ = ['/bin/cat', '/etc/motd']
const UNKNOWN_EXIT = 255

test.serial(
  'containerd is killed and comes back: pods go on with logs and exec; a VM is killed: its containers end, and nothing is left',
  async (t) => {
    const policy = (image: string): string =>
      `  - { name: loop, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(LOOP)}], logs: allow, exec: [[/bin/cat, /etc/motd]], max: 2 }`
    const { kubelet, containerd, image, initdata } = await startCluster(t, policy)
    await kubelet.pull(image.reference)
    const pod = await kubelet.runPod({ name: 'faults', initdata })
    const wish = { command: ['/bin/sh', '-c', LOOP] }
    const [first, second] = [
      await pod.run('loop', image.reference, { ...wish, logPath: 'first.log' }),
      await pod.run('loop', image.reference, { ...wish, logPath: 'second.log', attempt: 1 }),
    ]
    await kill(containerd, 'containerd')
    await containerd.run()
    t.is((await first.status()).state, ContainerState.CONTAINER_RUNNING)
    t.is((await first.exec(READ)).exitCode, 0)
    await first.stop()
    t.is((await first.status()).exitCode, 5)
    await kill(containerd, 'qemu')
    t.is((await second.exited()).exitCode, UNKNOWN_EXIT)
    await pod.ended()
    await pod.remove()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)
