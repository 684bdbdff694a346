/** `caisson run` on a machine that has no room left for what its guest writes. */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import test from 'ava'
import { caisson } from './fixtures/caisson-run.ts'
import { assertEnded, tracesAfter } from './fixtures/left.ts'
import { Workload } from './fixtures/workload.ts'

/** Less than the image, and more than everything else of a pod. */
const SMALL_MIB = 20
const LARGE_MIB = 512

test('a run whose machine has no room says so once, waits, and goes on when there is room', async (t) => {
  t.timeout(1_800_000)
  await using workload = await Workload.start()
  const { stateRoot } = workload
  mkdirSync(stateRoot)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${SMALL_MIB}m`, 'tmpfs', stateRoot])
  try {
    const run = workload.run(t)
    await run.shows(/"diskFull":true/)
    // Long enough for more than one try.
    await new Promise((resolve) => setTimeout(resolve, 12_000))
    execFileSync('mount', ['-o', `remount,size=${LARGE_MIB}m`, stateRoot])
    await run.shows(/"diskFull":false/)
    await run.shows(/^up$/m)
    t.is((await caisson('stop', '--state', stateRoot, run.id)).code, 0)
    const end = await run.ended
    assertEnded(t, end, { code: 0 })
    t.is(end.stderr.split('"diskFull":true').length - 1, 1)
    t.deepEqual(
      (await tracesAfter(stateRoot, 1)).filter((trace) => !trace.startsWith('tmpfs ')),
      [],
    )
  } finally {
    execFileSync('umount', ['-l', stateRoot])
  }
})
