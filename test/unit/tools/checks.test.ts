import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import test, { type ExecutionContext } from 'ava'

const ROOT = new URL('../../..', import.meta.url).pathname

/** A small tree with the tool in it, and a runner. */
function tree(t: ExecutionContext, tool: string, files: Record<string, string>): () => { code: number; text: string } {
  const folder = mkdtempSync(`${tmpdir()}/caisson-check-`)
  t.teardown(() => rm(folder, { recursive: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(`${folder}/${name.slice(0, name.lastIndexOf('/'))}`, { recursive: true })
    writeFileSync(`${folder}/${name}`, text)
  }
  mkdirSync(`${folder}/tools`, { recursive: true })
  cpSync(`${ROOT}/tools/${tool}`, `${folder}/tools/${tool}`)
  writeFileSync(`${folder}/package.json`, JSON.stringify({ type: 'module', scripts: { quickstart: 'x' } }))
  return () => {
    const result = spawnSync(process.execPath, [`tools/${tool}`], { cwd: folder, encoding: 'utf8' })
    return { code: result.status ?? -1, text: result.stderr }
  }
}

test('an import from the guest’s side to the host’s side fails the layer check', (t) => {
  const run = tree(t, 'check-layers.ts', { 'guest/agent/x.ts': "import { launch } from '#vmm/qemu'\n" })
  t.deepEqual(run(), { code: 1, text: 'guest/agent/x.ts: guest may not import from vmm (#vmm/qemu)\n' })
})

test('an import of the engine in code that the guest runs fails the layer check', (t) => {
  const run = tree(t, 'check-layers.ts', { 'guest/agent/x.ts': "import { readFileSync } from 'node:fs'\n" })
  t.regex(run().text, /may not name an engine \(node:fs\)/)
})

test('a promise whose test does not exist fails the promise check', (t) => {
  const run = tree(t, 'check-promises.ts', {
    'docs/promises.md':
      '| promise | shown by |\n| --- | --- |\n| it works | test: it works |\n| it runs | command: npm run quickstart |\n',
    'test/a.test.ts': "test('something else', (t) => t.pass())\n",
  })
  t.deepEqual(run(), { code: 1, text: 'docs/promises.md:3: nothing is called "test: it works"\n' })
})

test('an error code without an explanation fails the error check', (t) => {
  const run = tree(t, 'check-errors.ts', {
    'docs/errors.md': '| code | cause | remedy |\n| `ERR_KNOWN` | a | b |\n',
    'vmm/x.ts': "throw new E('ERR_KNOWN')\nthrow new E('ERR_NEW')\n",
  })
  t.deepEqual(run(), { code: 1, text: 'ERR_NEW (vmm/x.ts) is not in docs/errors.md\n' })
})

test('a parser without a property-based test fails the parser check', (t) => {
  const run = tree(t, 'check-parsers.ts', {
    'vmm/x.ts': 'export function parseOne(text: string) {}\nexport function parseTwo(text: string) {}\n',
    'test/one.test.ts': "import fc from 'fast-check'\nparseOne('x')\n",
    'test/two.test.ts': "parseTwo('x')\n",
  })
  t.deepEqual(run(), { code: 1, text: 'vmm/x.ts: parseTwo has no property-based test\n' })
})

test('--dry-run names each missing package with its reason and installs nothing', (t) => {
  const folder = mkdtempSync(`${tmpdir()}/caisson-dpkg-`)
  t.teardown(() => rm(folder, { recursive: true }))
  // A machine on which dpkg knows every package but swtpm, and on which apt-get must not be called.
  const answer = 'case "$4" in swtpm) exit 1;; *) printf installed;; esac'
  writeFileSync(`${folder}/dpkg-query`, `#!/bin/sh\n${answer}\n`, { mode: 0o755 })
  writeFileSync(`${folder}/apt-get`, `#!/bin/sh\ntouch ${folder}/called\n`, { mode: 0o755 })
  const result = spawnSync(process.execPath, ['tools/bootstrap.mjs', '--dry-run'], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, PATH: `${folder}:${process.env.PATH}` },
  })
  t.is(result.status, 0)
  t.regex(result.stderr, /1 Debian packages are missing:\n {2}swtpm +software TPM of the platform "tpm"\n/)
  t.regex(result.stderr, /apt-get install --no-install-recommends swtpm\n/)
  t.false(existsSync(`${folder}/called`))
})

test('an unknown lane is refused with the list of lanes', (t) => {
  const result = spawnSync(process.execPath, ['tools/bootstrap.mjs', 'nonsense'], { cwd: ROOT, encoding: 'utf8' })
  t.is(result.status, 2)
  t.regex(result.stderr, /unknown lane "nonsense"[\s\S]*quickstart/)
})
