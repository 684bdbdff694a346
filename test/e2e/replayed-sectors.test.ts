/** A host that gives a guest the sectors of its scratch disk as they were before. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import test from 'ava'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import { StreamKind } from '#protocol/gen/agent_pb'
import type { LayerSource } from '#tools/nginx-image/layout'
import { file, filler } from '../component/image/fixtures/image.ts'
import { startGuest, startSandbox } from './fixtures/shell-guest.ts'

const MIB = 1024 * 1024
const SCRATCH_MIB = 320
/** Written by a container and freed again before the image comes: most of the disk, so that the image comes over it. */
const FORMER_MIB = 240
const BIG_MIB = 96
const STORED_IMAGE = 'storage/docker/registry/v2/repositories/team/app'

test('sectors replayed from an earlier moment end the guest; it never reads old data as its image', async (t) => {
  t.timeout(900_000)
  const folder = await mkdtemp(join(tmpdir(), 'ch-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const layer: LayerSource = { compression: 'none', entries: [file('big', filler(BIG_MIB * MIB))] }
  const { pod, image, base } = await startGuest(folder, t, {
    id: 'replaying-host',
    memoryMib: 512,
    scratchMib: SCRATCH_MIB,
    more: [layer],
    // The hog takes memory, so that the kernel must forget what it has read of the disk and read it again.
    rules: (reference, small) => `
  - name: former
    image: ${small}
    args: [/bin/sh, -c, "dd if=/dev/zero of=/f bs=1M count=${FORMER_MIB} conv=fsync"]
  - name: hog
    image: ${reference}
    args: [/bin/sh, -c, "dd if=/dev/zero of=/fill/f bs=1M count=240 && echo full && cat"]
    mounts: [ { kind: tmpfs, path: /fill, maxBytes: ${250 * MIB} } ]
    logs: allow
    stdin: true
  - name: reader
    image: ${reference}
    args: [/bin/sh, -c, "while cat /big > /dev/null; do :; done"]
`,
  })
  // Guests fetch what their policy names as soon as they can: this image must not be there before its time.
  const repository = join(folder, 'registry', STORED_IMAGE)
  await rename(repository, `${folder}/later`)
  await startSandbox(pod)
  await pod.agent.createContainer({ containerId: 'former', name: 'former', image: base })
  await pod.agent.startContainer('former')
  t.is((await pod.agent.wait({ containerId: 'former' })).exitCode, 0)
  await pod.agent.delete({ containerId: 'former' })
  const earlier = join(folder, 'earlier')
  await copySparse(pod.paths.scratch, earlier)
  await rename(`${folder}/later`, repository)

  await pod.agent.createContainer({ containerId: 'hog', name: 'hog', image, stdin: true })
  await pod.agent.createContainer({ containerId: 'reader', name: 'reader', image })
  const full = await openGuestStream(pod, { kind: StreamKind.STDOUT, containerId: 'hog' })
  await pod.agent.startContainer('hog')
  t.is(String((await once(full, 'data'))[0]), 'full\n')
  const valid = await writtenOver(pod.paths.scratch, earlier)
  t.log(`${valid} MiB of the image lie where this guest had written, with the same key, before`)
  t.true(valid >= BIG_MIB / 4, 'what is replayed is no noise: it decrypts to what stood there')

  // Every sector as it was before the image came. What is still in memory may be read as long as it is; the first
  // sector that comes from the disk is the last.
  await pod.agent.startContainer('reader')
  await copySparse(earlier, pod.paths.scratch)
  await pod.exited
  t.regex(pod.vm.shutdownReason ?? '', /^guest-(?:reset|panic)$/, 'the guest’s kernel ended it')
})

/** As long as the disk, with holes where it has zeros; the target keeps its identity, for the VM has it open. */
async function copySparse(from: string, to: string): Promise<void> {
  await promisify(execFile)('cp', ['--sparse=always', from, to])
}

/** Resolves when the guest has written its image to the disk, with the MiB of it that came over something else. */
async function writtenOver(scratch: string, earlier: string): Promise<number> {
  for (;;) {
    const { changed, overwritten } = await compare(scratch, earlier)
    if (changed >= BIG_MIB) return overwritten
    await setTimeout(1000)
  }
}

/** MiB in which the disk differs from what it was, and of these those that were not empty then. */
async function compare(scratch: string, earlier: string): Promise<{ changed: number; overwritten: number }> {
  await using now = await open(scratch)
  await using before = await open(earlier)
  const [a, b, empty] = [Buffer.alloc(MIB), Buffer.alloc(MIB), Buffer.alloc(MIB)]
  let changed = 0
  let overwritten = 0
  for (let at = 0; at < SCRATCH_MIB; at++) {
    await now.read(a, 0, MIB, at * MIB)
    await before.read(b, 0, MIB, at * MIB)
    if (a.equals(b)) continue
    changed++
    if (!b.equals(empty)) overwritten++
  }
  return { changed, overwritten }
}
