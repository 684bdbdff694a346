/** A scratch disk whose reads fail, from the start or later. Nothing goes on with other bytes than were written. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openGuestStream } from '#host-shim/pod/guest-streams'
import { Stage, StreamKind } from '#protocol/gen/agent_pb'
import { file, filler } from '../component/image/fixtures/image.ts'
import { refusalOf } from '../e2e/fixtures/host.ts'
import { startGuest, startSandbox } from '../e2e/fixtures/shell-guest.ts'
import { FailingDisk } from './fixtures/failing-disk.ts'

const MIB = 1024 * 1024
const SCRATCH_MIB = 1024
const BIG_MIB = 96

async function folderOf(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'cs-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

test.serial('a scratch disk that cannot be read is refused before anything is kept on it', async (t) => {
  t.timeout(2_400_000)
  const disk = await FailingDisk.create(t, SCRATCH_MIB)
  disk.failsReads = true
  const { pod, image } = await startGuest(await folderOf(t), t, {
    id: 'unreadable',
    memoryMib: 512,
    more: [],
    rules: (reference) => `  - { name: app, image: "${reference}" }\n`,
    pod: { qemuProgram: disk.qemuProgram },
  })
  const refusal = await refusalOf(startSandbox(pod))
  t.is(refusal.code, 'ERR_SCRATCH')
  t.not(refusal.correlationId, '')
  t.true(disk.refused > 0)
  t.is((await pod.agent.getStatus()).stage, Stage.FAILED)
  t.is((await refusalOf(pod.agent.createContainer({ containerId: 'c', image }))).code, 'ERR_AGENT_STAGE')
})

test.serial('a scratch disk that stops being readable gives a workload errors, never other bytes', async (t) => {
  t.timeout(2_400_000)
  const disk = await FailingDisk.create(t, SCRATCH_MIB)
  const { pod, image } = await startGuest(await folderOf(t), t, {
    id: 'failing',
    memoryMib: 512,
    more: [{ compression: 'none', entries: [file('big', filler(BIG_MIB * MIB))] }],
    // The first one takes memory, so that the kernel must forget what it has read of the disk and read it again.
    rules: (reference) => `
  - name: hog
    image: ${reference}
    args: [/bin/sh, -c, "dd if=/dev/zero of=/fill/f bs=1M count=240 && echo full && cat"]
    mounts: [ { kind: tmpfs, path: /fill, maxBytes: ${250 * MIB} } ]
    logs: allow
    stdin: true
  - name: reader
    image: ${reference}
    args: [/bin/sh, -c, "while cat /big > /dev/null; do :; done; exit 9"]
`,
    pod: { qemuProgram: disk.qemuProgram },
  })
  await startSandbox(pod)
  await pod.agent.createContainer({ containerId: 'hog', name: 'hog', image, stdin: true })
  await pod.agent.createContainer({ containerId: 'reader', name: 'reader', image })
  const full = await openGuestStream(pod, { kind: StreamKind.STDOUT, containerId: 'hog' })
  await pod.agent.startContainer('hog')
  t.is(String((await once(full, 'data'))[0]), 'full\n')
  await pod.agent.startContainer('reader')
  disk.failsReads = true
  const ended = await Promise.race([
    pod.agent.wait({ containerId: 'reader' }).then(({ exitCode }) => `the reader ended with ${exitCode}`),
    pod.exited.then(() => 'the VM ended'),
  ])
  t.is(ended, 'the reader ended with 9')
  t.true(disk.refused > 0)
})
