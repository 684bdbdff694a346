/** A host that gives a guest the sectors of its scratch disk as they were before, or others. */
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
const SECTOR_BYTES = 4096
/** Written by a container and freed again before the image comes: most of the disk, so that the image comes over it. */
const FORMER_MIB = 240
const BIG_MIB = 96
const STORED_IMAGE = 'storage/docker/registry/v2/repositories/team/app'

test.serial(
  'sectors replayed from an earlier moment are never read as the image: they are an error, or the end of the guest',
  async (t) => {
    t.timeout(900_000)
    const folder = await mkdtemp(join(tmpdir(), 'ch-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const reads = `want=$(sum < /big) || exit 6
echo read
while got=$(sum < /big); do [ "$got" = "$want" ] || exit 7; done
exit 9`
    const layer: LayerSource = {
      compression: 'none',
      entries: [file('big', filler(BIG_MIB * MIB)), file('reads', reads)],
    }
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
    args: [/bin/sh, /reads]
    logs: allow
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

    // Every sector as it was before the image came. What is still in memory may be read as long as it is. Where the codes of
    // the sectors are in memory too, an old sector is an error; where they were replayed with it, it ends the guest.
    const read = await openGuestStream(pod, { kind: StreamKind.STDOUT, containerId: 'reader' })
    await pod.agent.startContainer('reader')
    t.is(String((await once(read, 'data'))[0]), 'read\n')
    await copySparse(earlier, pod.paths.scratch)
    const ended = await Promise.race([
      pod.agent.wait({ containerId: 'reader' }).then(({ exitCode }) => `the reader ended with ${exitCode}`),
      pod.exited.then(() => `the VM ended: ${pod.vm.shutdownReason}`),
    ])
    t.regex(ended, /^(?:the reader ended with 9|the VM ended: guest-(?:reset|panic))$/)
  },
)

test.serial('what a workload wrote and the host changed is an error for who reads it, never other bytes', async (t) => {
  t.timeout(900_000)
  const folder = await mkdtemp(join(tmpdir(), 'ch-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const program = `sync
echo flushed
read go
dd if=/dev/zero of=/f bs=1M count=96 conv=fsync || exit 3
before=$(sum < /f) || exit 4
dd if=/dev/zero of=/fill/f bs=1M count=240 || exit 5
echo full
read go
after=$(sum < /f) || exit 9
[ "$before" = "$after" ] || exit 7`
  const { pod, image } = await startGuest(folder, t, {
    id: 'changing-host',
    memoryMib: 512,
    scratchMib: SCRATCH_MIB,
    more: [{ compression: 'none', entries: [file('program', program)] }],
    // As above, what it fills makes the kernel forget what it wrote.
    rules: (reference) => `
  - name: writer
    image: ${reference}
    args: [/bin/sh, /program]
    mounts: [ { kind: tmpfs, path: /fill, maxBytes: ${250 * MIB} } ]
    logs: allow
    stdin: true
`,
  })
  await startSandbox(pod)
  await pod.agent.createContainer({ containerId: 'writer', name: 'writer', image, stdin: true })
  const output = await openGuestStream(pod, { kind: StreamKind.STDOUT, containerId: 'writer' })
  const input = await openGuestStream(pod, { kind: StreamKind.STDIN, containerId: 'writer' })
  await pod.agent.startContainer('writer')
  // What the image consists of is on the disk by then, and stays as it is.
  t.is(String((await once(output, 'data'))[0]), 'flushed\n')
  const earlier = join(folder, 'earlier')
  await copySparse(pod.paths.scratch, earlier)
  input.write('go\n')
  t.is(String((await once(output, 'data'))[0]), 'full\n')
  const changed = await flipWrittenSince(pod.paths.scratch, earlier)
  t.true(changed >= BIG_MIB, `${changed} MiB`)
  input.write('go\n')
  t.is((await pod.agent.wait({ containerId: 'writer' })).exitCode, 9)
})

/** One bit of each sector of 4096 bytes that is not as it was. Answers with their MiB. */
async function flipWrittenSince(scratch: string, earlier: string): Promise<number> {
  await using disk = await open(scratch, 'r+')
  await using before = await open(earlier)
  const [a, b] = [Buffer.alloc(MIB), Buffer.alloc(MIB)]
  let flipped = 0
  for (let at = 0; at < SCRATCH_MIB; at++) {
    await disk.read(a, 0, MIB, at * MIB)
    await before.read(b, 0, MIB, at * MIB)
    for (let sector = 0; sector < MIB; sector += SECTOR_BYTES) {
      if (a.compare(b, sector, sector + SECTOR_BYTES, sector, sector + SECTOR_BYTES) === 0) continue
      a[sector + 100] = (a[sector + 100] ?? 0) ^ 1
      flipped++
    }
    await disk.write(a, 0, MIB, at * MIB)
  }
  return Math.floor((flipped * SECTOR_BYTES) / MIB)
}

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
