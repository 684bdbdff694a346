/**
 * Rings, packets and vhost-user messages that break rules, against `caisson-pod` under the address and
 * undefined-behaviour sanitizers. The cases are C++ (native/host/test), because they pass descriptors and share memory:
 * each runs as the VMM that `caisson-pod` starts, and its exit code is the verdict.
 */
import { execFile, execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { parsePodEvent } from '#native/host/index'
import { buildNative } from '../../../native/build.mjs'

const run = promisify(execFile)

const { 'caisson-pod-sanitized': pod = '', 'vsock-hostile': hostile = '' } = await buildNative({
  only: ['caisson-pod-sanitized', 'vsock-hostile'],
})

const cases = execFileSync(hostile, ['--list'], { encoding: 'utf8' })
  .trimEnd()
  .split('\n')
  .map((line) => {
    const [name = '', expectation = '', title = ''] = line.split('\t')
    return { name, expectation, title }
  })

test('the list of cases is complete', (t) => {
  t.true(cases.length >= 100, `only ${cases.length} cases`)
  t.is(new Set(cases.map(({ name }) => name)).size, cases.length)
})

for (const { name, expectation, title } of cases) {
  test.serial(`${title} (${name})`, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'caisson-hostile-'))
    t.teardown(() => rmSync(dir, { recursive: true, force: true }))
    const args = ['--state-dir', dir, '--', hostile, join(dir, 'vhost.sock'), join(dir, 'vsock.sock'), name]

    const running = run(pod, args, { timeout: 60_000, killSignal: 'SIGKILL' })
    const { stdout, stderr, failure } = await running.then(
      (output) => ({ ...output, failure: undefined }),
      (error: { stdout: string; stderr: string }) => ({ stdout: error.stdout, stderr: error.stderr, failure: error }),
    )

    t.is(failure, undefined, `${stderr}${readLog(dir)}`)
    const events = stdout.trimEnd().split('\n').map(parsePodEvent)
    t.deepEqual(events.at(-1), { event: 'vm-exit', code: 0 })
    const cutOff = events.some((event) => event.event === 'protocol-error' && event.part === 'front-end')
    t.is(cutOff, expectation === 'fatal')
  })
}

function readLog(dir: string): string {
  try {
    return readFileSync(join(dir, 'vmm.log'), 'utf8')
  } catch {
    return ''
  }
}
