/** Pods that come and go, a hundred of them, ten at once: nothing of them stays on the node. */
import test from 'ava'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'
import { anonymousBytes, leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'

const ROUNDS = 10
const AT_ONCE = 10
const MIB = 1024 * 1024
/** What a garbage collector may leave for later. */
const SLACK_BYTES = 32 * MIB

test.serial(
  'a hundred pods, ten at once, leave nothing behind, and the daemon and its snapshotter do not grow',
  async (t) => {
    t.timeout(3 * 60 * 60_000)
    const cluster = await startCluster(t, (image) => `  - { name: once, image: ${image}, logs: allow }`)
    const { kubelet, containerd, image, initdata } = cluster
    await kubelet.pull(image.reference)
    const daemon = await containerd.daemon()
    const sizes: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      // Each goes as soon as it is done: some start while others end.
      const codes = await Promise.all(
        Array.from({ length: AT_ONCE }, async (_, index) => {
          const pod = await kubelet.runPod({ name: `pod-${round}-${index}`, initdata })
          const once = await pod.run('once', image.reference)
          const { exitCode } = await once.exited(20 * 60_000)
          await pod.remove()
          return exitCode
        }),
      )
      t.deepEqual(
        codes,
        Array.from({ length: AT_ONCE }, () => 7),
      )
      t.deepEqual(await leftoversAfter(containerd), [], `round ${round}`)
      sizes.push(anonymousBytes(daemon?.pid ?? 0))
      t.log(`round ${round}: the daemon has ${Math.round((sizes.at(-1) ?? 0) / MIB)} MiB`)
    }
    // The first rounds load code and fill caches.
    const [settled = 0] = sizes.slice(2)
    t.true((sizes.at(-1) ?? 0) < settled + SLACK_BYTES, sizes.join(', '))
  },
)
