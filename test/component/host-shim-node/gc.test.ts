/** `caisson node …` as an operator runs it, with every path inside a folder of the test. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'

const MAIN = fileURLToPath(new URL('../../../cli/caisson.mjs', import.meta.url))

function node(t: ExecutionContext) {
  const root = mkdtempSync(join(tmpdir(), 'cn-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  const path = (name: string): string => join(root, name)
  const places = ['--state', path('run'), '--snapshots', path('snapshots')]
  const caisson = (...words: string[]) => spawnSync(process.execPath, [MAIN, 'node', ...words], { encoding: 'utf8' })
  return { path, places, caisson }
}

test('what a crash left is named with --dry-run and removed without', async (t) => {
  const { path, places, caisson } = node(t)
  // A process that is gone: its pid means nobody any more.
  const gone = spawn('true', { stdio: 'ignore' })
  const pid = gone.pid ?? 0
  await new Promise((resolve) => gone.once('exit', resolve))
  const dead = { pid, startTicks: 1 }
  mkdirSync(path('run/records'), { recursive: true })
  mkdirSync(path('run/pods/aa'), { recursive: true })
  mkdirSync(path('snapshots/snapshots/.removed-7'), { recursive: true })
  writeFileSync(
    path('run/records/aa.json'),
    JSON.stringify({ version: 1, sandboxId: 'aa', relay: dead, tasks: {}, answers: [], events: [] }),
  )
  writeFileSync(
    path('run/pods/aa/record.json'),
    JSON.stringify({ version: 1, id: 'aa', platform: 'none', createdAtMs: 1, bootId: 'b', owner: dead, labels: {} }),
  )
  const listed = caisson('gc', '--dry-run', ...places, '--json')
  const { leftovers } = JSON.parse(listed.stdout) as { leftovers: readonly { kind: string }[] }
  t.deepEqual(
    leftovers.map(({ kind }) => kind),
    ['machine', 'record', 'snapshot'],
  )
  t.true(existsSync(path('run/pods/aa')))
  t.is(caisson('gc', ...places).status, 0)
  t.false(existsSync(path('run/pods/aa')))
  t.deepEqual(readdirSync(path('run/records')), [])
  t.deepEqual(readdirSync(path('snapshots/snapshots')), [])
  t.regex(caisson('gc', ...places).stdout, /nothing is left over/)
})
