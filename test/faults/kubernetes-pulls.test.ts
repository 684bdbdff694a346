/**
 * Images that come and go at once on a node whose one snapshotter serves guests and everybody else (containerd 1.6): whatever
 * the order, an image that containerd has afterwards can be run, and what was removed is gone.
 */
import { DatabaseSync } from 'node:sqlite'
import test from 'ava'
import type { PushedImage } from '#image/node/push'
import { shellLayers } from '../component/guest/shell-image.ts'
import { file } from '../component/image/fixtures/image.ts'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'
import type { KubernetesPod } from '../fixtures/kubernetes/kubelet.ts'
import { pullStorm } from '../fixtures/kubernetes/pull-storm.ts'

const ROUNDS = 12
const SAID = ['stderr F err', 'stdout F out']

test.serial('images are pulled, removed and collected at once: afterwards each can be run or is gone', async (t) => {
  t.timeout(1_800_000)
  const cluster = await startCluster(t)
  const { kubelet, containerd, push } = cluster
  const above = (name: string) => [{ compression: 'gzip' as const, entries: [file(`of.${name}`, name)] }]
  const own = (name: string) => [...above(`${name}-base`), ...shellLayers()]
  // Guests' images share all layers but one; the node's share theirs with each other, and none with guests.
  const guests = [
    await push('team/one', shellLayers()),
    await push('team/two', [...shellLayers(), ...above('two')]),
    await push('team/three', [...shellLayers(), ...above('three')]),
  ]
  const others = [await push('plain/one', own('plain')), await push('plain/two', [...own('plain'), ...above('more')])]
  const images = [...guests, ...others]
  const references = images.map(({ reference }) => reference)
  const storm = await pullStorm(kubelet, references, ROUNDS)
  t.deepEqual(storm.failures, [])
  t.log(`${storm.present} there and ${storm.absent} gone in the end`)
  const policy = guests.map(
    ({ reference }, index) => `  - { name: guest${index}, image: ${reference}, logs: allow, max: 2 }`,
  )
  const pod = await kubelet.runPod({ name: 'guests', initdata: cluster.initdataOf(policy.join('\n')) })
  const beside = await kubelet.runPod({ name: 'others', handler: 'runc' })
  const runs = async (place: KubernetesPod, name: string, image: PushedImage, attempt: number) => {
    if (!(await kubelet.hasImage(image.reference))) await kubelet.pull(image.reference)
    const container = await place.run(name, image.reference, { attempt })
    t.is((await container.exited()).exitCode, 7, image.reference)
    if (attempt === 0) t.deepEqual(container.log().toSorted(), SAID)
    await container.remove()
  }
  for (const [index, image] of guests.entries()) await runs(pod, `guest${index}`, image, 0)
  for (const [index, image] of others.entries()) await runs(beside, `other${index}`, image, 0)
  // And from nothing again.
  for (const image of images) await kubelet.removeImage(image.reference)
  for (const image of images) t.false(await kubelet.hasImage(image.reference))
  const blobs = containerd.hostBlobs()
  for (const { digest, layers } of images) {
    for (const left of [digest, ...layers.map((layer) => layer.digest)]) t.false(blobs.includes(left), left)
  }
  for (const [index, image] of guests.entries()) await runs(pod, `guest${index}`, image, 1)
  for (const [index, image] of others.entries()) await runs(beside, `other${index}`, image, 1)
  await pod.remove()
  await beside.remove()
  for (const image of images) await kubelet.removeImage(image.reference)
  // That of the sandboxes of runc.
  t.is(snapshotNames(containerd.path('snapshots')).length, 1)
})

/** What the snapshotter still remembers. */
function snapshotNames(directory: string): readonly string[] {
  const db = new DatabaseSync(`${directory}/snapshots.db`, { readOnly: true })
  const rows = db.prepare('SELECT name FROM snapshots').all()
  db.close()
  return rows.map(({ name }) => String(name))
}
