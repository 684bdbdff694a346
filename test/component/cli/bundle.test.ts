import { execFile, execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { COMMANDS } from '#cli/commands'

const run = promisify(execFile)

const ROOT = join(import.meta.dirname, '../../..')

/** A project with a command line of two files, and the bundler and starter of this one. */
function project(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-cli-bundle-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const root = join(folder, 'project')
  mkdirSync(join(root, 'cli'), { recursive: true })
  mkdirSync(join(root, 'node_modules'))
  cpSync(join(ROOT, 'cli/bundle'), join(root, 'cli/bundle'), { recursive: true })
  cpSync(join(ROOT, 'cli/caisson.mjs'), join(root, 'cli/caisson.mjs'))
  for (const name of ['esbuild', '@esbuild'])
    symlinkSync(join(ROOT, 'node_modules', name), join(root, 'node_modules', name))
  for (const name of ['package.json', 'package-lock.json']) writeFileSync(join(root, name), '{ "type": "module" }')
  writeFileSync(join(root, 'cli/document.txt'), 'of the project')
  mkdirSync(join(root, 'node_modules/beside'))
  const index = `'use strict'\nmodule.exports = require('fs').readFileSync(__dirname + '/word.txt', 'utf8')`
  writeFileSync(join(root, 'node_modules/beside/index.js'), index)
  writeFileSync(join(root, 'node_modules/beside/word.txt'), 'of a package')
  writeFileSync(join(root, 'node_modules/beside/package.json'), '{}')
  writeFileSync(join(root, 'cli/main.ts'), `console.log((await import('./says.ts')).says)`)
  says(root, 'one')
  return root
}

/** What the command line says: a word, what it reads from beside itself, and whether this is a source. */
function says(root: string, word: string): void {
  const text = `import { readFileSync } from 'node:fs'
import beside from 'beside'
const document: string = readFileSync(new URL('document.txt', import.meta.url), 'utf8')
const isSource: boolean = new Error().stack?.includes('says.ts') ?? false
const literal: string = 'import.meta.url'
export const says: string = \`${word}, \${document}, \${beside}, \${literal}, \${isSource ? 'source' : 'bundle'}\``
  writeFileSync(join(root, 'cli/says.ts'), text)
}

function bundle(root: string): void {
  execFileSync(process.execPath, [join(root, 'cli/bundle/build.mjs')], { stdio: 'pipe' })
}

function output(root: string): string {
  const env = { ...process.env, XDG_CACHE_HOME: join(root, 'cache') }
  return execFileSync(process.execPath, [join(root, 'cli/caisson.mjs')], {
    encoding: 'utf8',
    env,
    stdio: 'pipe',
  }).trim()
}

test('every command starts from the bundle of this project', async (t) => {
  bundle(ROOT)
  const outputs = join(ROOT, 'node_modules/.cache/caisson-cli')
  const { entry } = JSON.parse(readFileSync(join(outputs, 'current.json'), 'utf8')) as { readonly entry: string }
  const paths = Object.keys(COMMANDS)
  t.true(paths.length > 40)
  const env = { ...process.env, XDG_CACHE_HOME: join(project(t), 'cache') }
  for (const path of paths) {
    const words = [join(outputs, entry), ...path.split(' '), '--help']
    const { stdout, stderr } = await run(process.execPath, words, { env })
    t.true(stdout.startsWith(`usage: caisson ${path} `), path)
    t.is(stderr, '', path)
  }
})

test('the command line runs from its bundle, and from its sources as soon as one of them has changed', (t) => {
  const root = project(t)
  t.is(output(root), 'one, of the project, of a package, import.meta.url, source')
  bundle(root)
  t.is(output(root), 'one, of the project, of a package, import.meta.url, bundle')
  says(root, 'another')
  t.is(output(root), 'another, of the project, of a package, import.meta.url, source')
  bundle(root)
  t.is(output(root), 'another, of the project, of a package, import.meta.url, bundle')
  rmSync(join(root, 'cli/says.ts'))
  says(root, 'another')
  t.is(
    output(root),
    'another, of the project, of a package, import.meta.url, source',
    'written again, with the same content',
  )
})

test('a bundle goes with its project: copied with its times, whole seconds of them too, and not without', (t) => {
  const root = project(t)
  bundle(root)
  const copied = `${root}-copied`
  execFileSync('cp', ['-a', root, copied])
  rmSync(join(root, 'cli/document.txt'))
  t.is(output(copied), 'one, of the project, of a package, import.meta.url, bundle')
  for (const name of ['cli/main.ts', 'cli/says.ts']) {
    const seconds = Math.floor(statSync(join(copied, name)).mtimeMs / 1000)
    utimesSync(join(copied, name), seconds, seconds)
  }
  t.is(output(copied), 'one, of the project, of a package, import.meta.url, bundle')
  utimesSync(join(copied, 'cli/main.ts'), 1, 1)
  t.is(output(copied), 'one, of the project, of a package, import.meta.url, source')
})

test('a project that shares the packages of another does not run the bundle of the other', (t) => {
  const root = project(t)
  bundle(root)
  const copied = `${root}-copied`
  execFileSync('cp', ['-a', root, copied])
  rmSync(join(copied, 'node_modules'), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copied, 'node_modules'))
  writeFileSync(join(copied, 'cli/document.txt'), 'of the copy')
  t.is(output(copied), 'one, of the copy, of a package, import.meta.url, source')
})

test('a new bundle takes nothing away from who runs the one before, and a broken record is no bundle', (t) => {
  const root = project(t)
  bundle(root)
  const outputs = join(root, 'node_modules/.cache/caisson-cli')
  const before = readdirSync(outputs).filter((name) => name.endsWith('.js'))
  says(root, 'another')
  bundle(root)
  for (const name of before) t.true(existsSync(join(outputs, name)), name)
  t.true(readdirSync(outputs).length > before.length + 1)
  writeFileSync(join(outputs, 'current.json'), '{ "root": ')
  t.is(output(root), 'another, of the project, of a package, import.meta.url, source')
  bundle(root)
  t.is(output(root), 'another, of the project, of a package, import.meta.url, bundle')
})
