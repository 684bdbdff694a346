/**
 * `kill -9` of each process of a pod at each moment of its life. The run ends with the right code and an explanation, and
 * what it made on the host is gone: at once, or after `caisson rm` where the process that would remove it was killed.
 */
import anyTest, { type TestFn } from 'ava'
import { type CaissonRun, caisson, startCaisson, traces, type Victim } from './fixtures/caisson-run.ts'
import { assertEnded, type Expected, tracesAfter } from './fixtures/left.ts'
import { Workload } from './fixtures/workload.ts'

const test = anyTest as TestFn<{ workload: Workload }>

test.before(async (t) => {
  t.timeout(2_400_000)
  t.context = { workload: await Workload.start() }
})

test.after.always(async (t) => {
  await t.context.workload?.[Symbol.asyncDispose]()
})

/** Moments of a pod's life, by what `caisson run` shows when it is there. */
const MOMENTS = {
  'while its TPM is made': /"stage":"tpm"/,
  'while the firmware runs': /"stage":"firmware"/,
  'while the kernel starts': /"stage":"kernel"/,
  'while it attests': /"stage":"attesting"/,
  'while it pulls': /"stage":"pulling: signature accepted"/,
  'while its container runs': /^up$/m,
  'while its container stops': /^told to stop$/m,
} as const

type Moment = keyof typeof MOMENTS

const VM_ENDED: Expected = { code: 125, errors: ['ERR_VM_EXITED'] }

interface Kill {
  readonly victim: Victim
  readonly moment: Moment
  readonly expected: Expected
}

const BOOTED: readonly Moment[] = [
  'while the firmware runs',
  'while the kernel starts',
  'while it attests',
  'while it pulls',
  'while its container runs',
  'while its container stops',
]

const KILLS: readonly Kill[] = [
  ...(['qemu', 'caisson-pod'] as const).flatMap((victim) =>
    BOOTED.map((moment) => ({ victim, moment, expected: VM_ENDED })),
  ),
  { victim: 'swtpm', moment: 'while the firmware runs', expected: VM_ENDED },
  { victim: 'swtpm', moment: 'while it attests', expected: { code: 125, errors: ['ERR_TPM_DEVICE'] } },
  { victim: 'swtpm', moment: 'while it pulls', expected: { code: 125, errors: ['ERR_TPM_DEVICE'] } },
  // Nothing of a running container needs the TPM.
  { victim: 'swtpm', moment: 'while its container runs', expected: { code: 0 } },
  { victim: 'swtpm', moment: 'while its container stops', expected: { code: 0 } },
]

for (const { victim, moment, expected } of KILLS) {
  test.serial(`${victim} is killed ${moment}: ${outcome(expected)}, and nothing is left`, async (t) => {
    t.timeout(2_400_000)
    const { workload } = t.context
    const run = workload.run(t)
    await reach(run, moment)
    process.kill(run.pidOf(victim), 'SIGKILL')
    if (expected.code === 0 && moment === 'while its container runs') {
      t.is((await caisson('stop', '--state', run.stateRoot, run.id)).code, 0)
    }
    assertEnded(t, await run.ended, expected)
    t.deepEqual(await tracesAfter(run.stateRoot), [])
  })
}

const UNSTOPPED = BOOTED.filter((moment) => moment !== 'while its container stops')

for (const moment of ['while its TPM is made', ...UNSTOPPED] as const) {
  test.serial(`caisson run is killed ${moment}: its VM ends by itself, and caisson rm removes the rest`, async (t) => {
    t.timeout(2_400_000)
    const { workload } = t.context
    const run = workload.run(t)
    await reach(run, moment)
    run.child.kill('SIGKILL')
    t.is((await run.ended).signal, 'SIGKILL')
    if (moment !== 'while its TPM is made') {
      t.deepEqual(await tracesAfter(run.stateRoot, 1), [`folder ${run.id}`], 'no process outlives its owner')
    }
    const listed = await caisson('ps', '--json', '--state', run.stateRoot)
    t.regex(listed.output, new RegExp(`"${run.id}".*"orphaned"`))
    t.is((await caisson('rm', '--state', run.stateRoot, run.id)).code, 0)
    t.deepEqual(traces(run.stateRoot), [])
  })
}

test.serial(
  'caisson run is killed while its container stops: caisson stop ends the VM and removes everything',
  async (t) => {
    t.timeout(2_400_000)
    const run = t.context.workload.run(t)
    await run.shows(MOMENTS['while its container runs'])
    const stopped = caisson('stop', '--state', run.stateRoot, run.id)
    await run.shows(MOMENTS['while its container stops'])
    run.child.kill('SIGKILL')
    t.is((await stopped).code, 0)
    t.deepEqual(traces(run.stateRoot), [])
  },
)

test.serial(
  'an interrupt at any moment before the container runs ends in order: 125, and nothing is left',
  async (t) => {
    t.timeout(2_400_000)
    const { workload } = t.context
    for (const moment of [
      'while its TPM is made',
      'while the kernel starts',
      'while it attests',
      'while it pulls',
    ] as const) {
      const run = workload.run(t)
      await reach(run, moment)
      run.child.kill('SIGTERM')
      assertEnded(t, await run.ended, { code: 125, errors: ['ERR_INTERRUPTED'] }, moment)
      t.deepEqual(await tracesAfter(run.stateRoot), [], moment)
    }
  },
)

test.serial('caisson stop that is killed leaves a pod that another caisson stop ends', async (t) => {
  t.timeout(2_400_000)
  const { workload } = t.context
  const run = workload.run(t)
  await run.shows(MOMENTS['while its container runs'])
  const first = startCaisson('stop', '--state', run.stateRoot, run.id)
  await run.shows(MOMENTS['while its container stops'])
  first.kill('SIGKILL')
  t.is((await caisson('stop', '--state', run.stateRoot, run.id)).code, 0)
  assertEnded(t, await run.ended, { code: 0 })
  t.deepEqual(await tracesAfter(run.stateRoot), [])
})

/** Resolves when the run is at this moment. */
async function reach(run: CaissonRun, moment: Moment): Promise<void> {
  if (moment === 'while its container stops') {
    await run.shows(MOMENTS['while its container runs'])
    void caisson('stop', '--state', run.stateRoot, run.id)
  }
  await run.shows(MOMENTS[moment])
}

function outcome(expected: Expected): string {
  return expected.code === 0 ? 'the container ends as it would have' : `code 125, ${expected.errors.join(' or ')}`
}
