/** Verifier and registry away, for a while or for good, while a pod needs them. */
import { setTimeout } from 'node:timers/promises'
import anyTest, { type ExecutionContext, type TestFn } from 'ava'
import { type CaissonRun, caisson } from './fixtures/caisson-run.ts'
import { assertEnded, tracesAfter } from './fixtures/left.ts'
import { Workload } from './fixtures/workload.ts'

const test = anyTest as TestFn<{ workload: Workload }>

/** How long a server is away: several of the guest's attempts. */
const OUTAGE_MS = 6_000

test.before(async (t) => {
  t.timeout(1_800_000)
  t.context = { workload: await Workload.start() }
})

test.beforeEach(async (t) => {
  await doorsOf(t.context.workload).verifier.open()
  await doorsOf(t.context.workload).registry.open()
})

test.after.always(async (t) => {
  await t.context.workload?.[Symbol.asyncDispose]()
})

function doorsOf(workload: Workload): NonNullable<Workload['tenant']['doors']> {
  const { doors } = workload.tenant
  if (doors === undefined) throw new Error('this tenant has no doors')
  return doors
}

/** The container runs, is stopped, and nothing is left. */
async function assertRuns(t: ExecutionContext, run: CaissonRun): Promise<void> {
  await run.shows(/^up$/m)
  t.is((await caisson('stop', '--state', run.stateRoot, run.id)).code, 0)
  assertEnded(t, await run.ended, { code: 0 })
  t.deepEqual(await tracesAfter(run.stateRoot), [])
}

test.serial('a verifier that is away when the guest attests, and comes back, is found again', async (t) => {
  t.timeout(1_800_000)
  const { workload } = t.context
  const { verifier } = doorsOf(workload)
  await verifier.shut()
  const run = workload.run(t)
  await run.shows(/"stage":"attesting"/)
  await setTimeout(OUTAGE_MS)
  await verifier.open()
  await assertRuns(t, run)
})

test.serial('a verifier that goes away during the pull, and comes back, gives the second token', async (t) => {
  t.timeout(1_800_000)
  const { workload } = t.context
  const { verifier } = doorsOf(workload)
  const run = workload.run(t)
  await run.shows(/"stage":"pulling: signature accepted"/)
  await verifier.shut()
  await run.shows(/"stage":"pulled"/)
  await setTimeout(OUTAGE_MS)
  await verifier.open()
  await assertRuns(t, run)
})

test.serial('a verifier that stays away ends the run with code 125, ERR_VERIFIER_UNAVAILABLE', async (t) => {
  t.timeout(1_800_000)
  const { workload } = t.context
  await doorsOf(workload).verifier.shut()
  const run = workload.run(t)
  assertEnded(t, await run.ended, { code: 125, errors: ['ERR_VERIFIER_UNAVAILABLE'] })
  t.deepEqual(await tracesAfter(run.stateRoot), [])
})

test.serial('a registry that is away ends the run with code 125, and the next run works', async (t) => {
  t.timeout(1_800_000)
  const { workload } = t.context
  const { registry } = doorsOf(workload)
  await registry.shut()
  const run = workload.run(t)
  assertEnded(t, await run.ended, { code: 125, errors: ['ERR_HTTP_CONNECT'] })
  t.deepEqual(await tracesAfter(run.stateRoot), [])
  await registry.open()
  await assertRuns(t, workload.run(t))
})

test.serial('a registry that goes away within a layer, and comes back, is gone on with', async (t) => {
  t.timeout(1_800_000)
  const { workload } = t.context
  const { registry } = doorsOf(workload)
  const run = workload.run(t)
  await run.shows(/"stage":"pulling: signature accepted"/)
  await registry.shut()
  await setTimeout(OUTAGE_MS)
  await registry.open()
  await assertRuns(t, run)
})
