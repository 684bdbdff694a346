/** A short run of every fuzzer, always the same; long ones: npm run test:fuzz. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { FUZZERS } from '#tools/fuzz/fuzzers'
import { runFuzzer } from '#tools/fuzz/run'
import { buildNative } from '../../../native/build.mjs'
import { targets } from '../../../native/targets.mjs'

const programs = await buildNative({ only: FUZZERS.map(({ name }) => `fuzz-${name}`) })

test('every fuzz program is run', (t) => {
  const built = targets.filter(({ kind }) => kind === 'fuzz-program').map(({ name }) => name)
  t.deepEqual(built.sort(), FUZZERS.map(({ name }) => `fuzz-${name}`).sort())
})

for (const fuzzer of FUZZERS) {
  // One after the other: they take a processor each.
  test.serial(`coverage-guided input finds nothing in ${fuzzer.name}, under sanitizers`, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'caisson-fuzz-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const program = programs[`fuzz-${fuzzer.name}`] ?? ''
    const result = await runFuzzer(fuzzer, { program, folder, until: { runs: fuzzer.testRuns }, seed: 1 })
    t.is(result.finding?.report, undefined)
    t.true(result.executions >= fuzzer.testRuns, `${result.executions}`)
    t.true(result.coverage > 10, `${result.coverage}`)
  })
}
