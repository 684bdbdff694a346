/** The native build on small targets of its own, in folders of its own. */
import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'

const TARGETS = `export const targets = [
  { name: 'hello', kind: 'static-program', sources: ['native/hello/*.c'] },
  { name: 'later', kind: 'program', sources: ['native/later/*.cc'] },
  { name: 'wrong', kind: 'program', sources: ['native/wrong/*.cc'], onDemand: true },
]
`
const HELLO = '#include "word.h"\n#include <stdio.h>\nint main(void) { return puts(WORD " from " __FILE__) < 0; }\n'

function project(t: ExecutionContext): string {
  const root = mkdtempSync(join(tmpdir(), 'caisson-build-'))
  t.teardown(() => rmSync(root, { recursive: true, force: true }))
  mkdirSync(join(root, 'native/hello'), { recursive: true })
  mkdirSync(join(root, 'native/wrong'))
  copyFileSync(fileURLToPath(new URL('../../../native/build.mjs', import.meta.url)), join(root, 'native/build.mjs'))
  writeFileSync(join(root, 'native/targets.mjs'), TARGETS)
  writeFileSync(join(root, 'native/hello/main.c'), HELLO)
  writeFileSync(join(root, 'native/hello/word.h'), '#define WORD "hello"\n')
  writeFileSync(join(root, 'native/wrong/main.cc'), 'int main() { return unknown; }\n')
  return root
}

function build(root: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = process.env) {
  return spawnSync(process.execPath, [join(root, 'native/build.mjs'), ...args], { encoding: 'utf8', env })
}

const output = (root: string) => join(root, 'native/build/hello')

test('a target is built once, and again when a source, a header or its output changes', (t) => {
  const root = project(t)
  t.regex(build(root).stdout, /^hello built in/)
  t.is(spawnSync(output(root), { encoding: 'utf8' }).stdout, 'hello from native/hello/main.c\n')
  const { ino } = statSync(output(root))
  t.is(build(root).stdout, '')
  t.is(statSync(output(root)).ino, ino)

  writeFileSync(join(root, 'native/hello/word.h'), '#define WORD "bye"\n')
  t.regex(build(root).stdout, /^hello built in/)
  t.is(spawnSync(output(root), { encoding: 'utf8' }).stdout, 'bye from native/hello/main.c\n')

  appendFileSync(output(root), 'tampered')
  t.regex(build(root).stdout, /^hello built in/)
  t.is(build(root, ['--only', 'hello']).stdout, 'hello is up to date\n')
})

test('the output does not depend on the folder', (t) => {
  const roots = [project(t), project(t)]
  const [first, second] = roots.map((root) => {
    build(root)
    return readFileSync(output(root))
  })
  t.true(first !== undefined && second !== undefined && first.equals(second))
})

test('a target without sources is skipped, one on demand waits to be named', (t) => {
  const root = project(t)
  t.is(build(root, ['--only', 'later']).status, 0)
  t.is(build(root, ['--list']).stdout, 'hello (static-program)\nlater (program)\nwrong (program, on demand)\n')
  const { status, stderr } = build(root, ['--only', 'wrong'])
  t.is(status, 1)
  t.regex(stderr, /^ERR_NATIVE_COMPILE: wrong does not compile[\s\S]*unknown/)
})

test('a missing compiler is named with its Debian package', (t) => {
  const { status, stderr } = build(project(t), [], { PATH: '/nonexistent' })
  t.is(status, 3)
  t.regex(stderr, /^ERR_COMPILER_MISSING: the compiler gcc is missing/)
  t.regex(stderr, /apt-get install gcc/)
})

test('an unknown target and unknown arguments are refused', (t) => {
  const root = project(t)
  t.regex(build(root, ['--only', 'nobody']).stderr, /^ERR_NATIVE_TARGET: there is no native target "nobody"/)
  t.is(build(root, ['--wrong']).status, 2)
})
