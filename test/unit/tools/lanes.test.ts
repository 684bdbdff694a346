/** How a lane runs its steps. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import test from 'ava'

const ROOT = new URL('../../..', import.meta.url).pathname

/** A script that has `run`, which runs one step. */
function script(text: string): readonly string[] {
  return ['--input-type=module', '-e', `import { run } from '${ROOT}tools/bootstrap/lanes.mjs'; ${text}`]
}

test('a lane of many steps listens to signals only while a step runs', (t) => {
  const steps = 'for (let step = 0; step < 12; step++) await run(["true"]); '
  const count = 'console.log(process.listenerCount("SIGTERM"), process.listenerCount("SIGINT"))'
  const result = spawnSync(process.execPath, script(steps + count), { cwd: ROOT, encoding: 'utf8' })
  t.is(result.stderr, '', 'no warning of a leak')
  t.is(result.stdout, '0 0\n')
})

test('a lane that is told to end passes that on to the step that runs', async (t) => {
  const lane = spawn(process.execPath, script('process.exitCode = await run(["sh", "-c", "echo up; exec sleep 600"])'))
  await once(lane.stdout, 'data')
  lane.kill('SIGTERM')
  t.deepEqual(await once(lane, 'exit'), [130, null])
})
