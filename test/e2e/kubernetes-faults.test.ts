/** A few faults of a node with pods; test/faults has each process at each moment. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { ContainerState } from '../fixtures/cri/gen/cri_pb.ts'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { pullStorm } from '../fixtures/kubernetes/pull-storm.ts'
import { kill } from '../fixtures/kubernetes/victims.ts'
import { PodFolder } from '../fixtures/kubernetes/volume-folder.ts'

const LOOP = "trap 'exit 5' TERM; echo waiting; while :; do sleep 1; done"
const READ = ['/bin/cat', '/etc/motd']
const UNKNOWN_EXIT = 255

test.serial(
  'containerd is killed and comes back: pods go on with logs and exec; a VM is killed: its containers end and say why, and nothing is left',
  async (t) => {
    const policy = (image: string): string =>
      `  - { name: loop, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(LOOP)}], logs: allow, terminationMessage: /dev/termination-log, exec: [[/bin/cat, /etc/motd]], max: 2 }`
    const { kubelet, containerd, image, same, other, initdata } = await startCluster(t, policy)
    // Afterwards the pod's image must be one that runs, whatever became of it meanwhile.
    const storm = await pullStorm(kubelet, [image.reference, other.reference], 3)
    t.deepEqual(storm.failures, [])
    // Its layers lie on the node after all: another image had them, which is gone. Its user is the image's in the guest all the same.
    await kubelet.removeImage(image.reference)
    for (const { reference } of [same, image]) await kubelet.pull(reference)
    await kubelet.removeImage(same.reference)
    t.true(same.layers.every(({ digest }) => containerd.hostBlobs().includes(digest)))
    const pod = await kubelet.runPod({ name: 'faults', initdata })
    const message = new PodFolder(containerd.path('kubelet'), 'uid-faults').terminationLog('loop')
    const words = { containerPath: '/dev/termination-log', hostPath: message, readonly: false }
    const wish = { command: ['/bin/sh', '-c', LOOP], mounts: [{ $typeName: 'runtime.v1.Mount' as const, ...words }] }
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
    // What `kubectl describe pod` shows of it.
    t.is(readFileSync(message, 'utf8'), 'the machine of the pod has ended: QEMU was ended by signal 9\n')
    await pod.ended()
    await pod.remove()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)
