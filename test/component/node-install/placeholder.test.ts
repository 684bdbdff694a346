/** The image that stands for sealed ones, in a real containerd. */
import test from 'ava'
import { PLACEHOLDER_IMAGE, removePlaceholder } from '#host-shim/containerd/placeholder'
import { TestNode } from './node.ts'

test('an installation imports the image that stands for sealed ones when containerd runs, and it can be taken back', async (t) => {
  const node = await TestNode.make(t, '1.6')
  const install = async (): Promise<unknown> => {
    const { stdout, stderr } = await node.caisson('install', '--platform', 'none', '--accel', 'tcg', '--json')
    t.is(stderr, '')
    return (JSON.parse(stdout) as { sealedImage: unknown }).sealedImage
  }
  const images = (): string => node.ctr('--namespace', 'k8s.io', 'images', 'ls', '--quiet')
  t.deepEqual(await install(), { name: PLACEHOLDER_IMAGE, isImported: false })
  t.false(await removePlaceholder(node.address))
  await node.startContainerd()
  t.teardown(() => node.stopContainerd())
  t.deepEqual(await install(), { name: PLACEHOLDER_IMAGE, isImported: true })
  t.true(images().includes(PLACEHOLDER_IMAGE))
  t.true(await removePlaceholder(node.address))
  t.false(images().includes(PLACEHOLDER_IMAGE))
})
