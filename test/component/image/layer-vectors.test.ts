import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import test from 'ava'
import { CaissonError } from '#protocol/errors'
import { encodeTar } from '#tools/nginx-image/tar'
import { buildNative } from '../../../native/build.mjs'
import { directory, file, filler } from './fixtures/image.ts'
import { mountImage } from './fixtures/mount.ts'
import { indexLayers, storeImage, storeLayer } from './fixtures/stored.ts'
import { listTree } from './fixtures/tree.ts'
import { workspace } from './fixtures/workspace.ts'

const OCI = join(import.meta.dirname, '../../vectors/oci')
const TARS = join(OCI, 'tar-split/archive/tar/testdata')

interface Expected {
  readonly cases: readonly {
    readonly file: string
    readonly err: string | null
    readonly names: readonly string[]
    readonly md5: readonly string[]
  }[]
}

test.before(async () => {
  await buildNative({ only: ['shared', 'layer-fuzz'] })
})

const json = <T>(name: string): T => JSON.parse(readFileSync(join(OCI, '_expected', name), 'utf8'))
const { cases } = json<Expected>('tar-go.json')

/** A tar as a layer, stored and indexed. */
async function take(folder: string, path: string): Promise<void> {
  const bytes = readFileSync(path)
  // As tars, as their own tests read them: compressed bytes are none.
  const layer = await storeLayer(folder, 'layer', bytes)
  await indexLayers(folder, [layer])
}

for (const { file: name, err } of cases) {
  test(`${name} is ${err === null ? 'taken' : 'refused'}, as its expected verdict says`, async (t) => {
    const folder = await workspace(t)
    if (err === null) await t.notThrowsAsync(take(folder, join(TARS, name)))
    else await t.throwsAsync(take(folder, join(TARS, name)), { code: 'ERR_LAYER_ENTRY' })
  })
}

test('the sparse files of every format hold what their expected digests say', async (t) => {
  const folder = await workspace(t)
  const image = await storeImage(folder, [readFileSync(join(TARS, 'sparse-formats.tar'))])
  const mounted = mountImage(t, folder, image)
  const { names = [], md5 = [] } = cases.find(({ file }) => file === 'sparse-formats.tar') ?? {}
  t.is(md5.length, 5)
  for (const [number, name] of names.entries()) {
    const content = readFileSync(join(mounted, JSON.parse(name)))
    t.is(createHash('md5').update(content).digest('hex'), md5[number] ?? '', name)
  }
})

/** tar-rs and tar-stream have no file of verdicts of their own: "must parse", but for the ones that are named. */
const OTHERS: Readonly<Record<string, string>> = json('others.json')
const MUST_PARSE = ['tar-rs/tests/archives', 'tar-stream/test/fixtures']
const MUST_FAIL = ['incomplete.tar', 'invalid.tgz']

test('the verdicts on other readers’ archives are the ones below', (t) => {
  t.regex(OTHERS['tar-rs'] ?? '', /^every archive must parse/)
  t.regex(OTHERS['tar-stream'] ?? '', /^incomplete.tar -> error; invalid.tgz -> error; others parse/)
})

for (const folder of MUST_PARSE) {
  for (const name of readdirSync(join(OCI, folder))) {
    if (!/\.(?:tar|tgz)$/.test(name)) continue
    test(`${name} of ${folder.split('/')[0]} is ${MUST_FAIL.includes(name) ? 'refused' : 'taken'}`, async (t) => {
      const taken = take(await workspace(t), join(OCI, folder, name))
      if (MUST_FAIL.includes(name)) await t.throwsAsync(taken, { instanceOf: CaissonError })
      else await t.notThrowsAsync(taken)
    })
  }
}

test('a link that leads out is kept as text, and what lies behind it is not written', async (t) => {
  const folder = await workspace(t)
  const tar = readFileSync(join(OCI, 'exarch/fixtures/cve-2024-12905-symlink-escape.tar'))
  const mounted = mountImage(t, folder, await storeImage(folder, [tar]))
  const names = listTree(mounted)
  t.true(names.some((line) => line.includes('-> /etc/passwd')))
  t.deepEqual(
    names.filter((line) => line.includes('0o120777') && !line.includes('-> /etc/passwd')),
    [],
  )
})

test('the merged layers of the whiteout image have no path element "foo"', async (t) => {
  const folder = await workspace(t)
  t.regex(JSON.stringify(OTHERS), /merged rootfs has no path element/)
  const archive = join(OCI, 'go-containerregistry/pkg/v1/mutate/testdata/whiteout_image.tar')
  execFileSync('tar', ['-xf', archive, '-C', folder])
  const [{ Layers }] = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'))
  const layers = []
  for (const name of Layers) {
    const bytes = readFileSync(join(folder, name))
    const compression = bytes[0] === 0x1f ? 'gzip' : 'none'
    layers.push(await storeLayer(folder, name.replaceAll('/', '-'), bytes, { compression }))
  }
  const mounted = mountImage(t, folder, { layers, index: await indexLayers(folder, layers) })
  t.false(listTree(mounted).some((line) => /(?:^|\/)foo(?:\/| )/.test(line)))
})

test('thousands of mutated layers break neither memory nor the agreement between two readings', async (t) => {
  const folder = await workspace(t)
  const tar = encodeTar([
    directory('d'),
    { ...file('d/a', filler(3000)), xattrs: { 'user.note': 'x' } },
    { path: 'd/l', type: 'symlink', mode: 0o777, target: 't'.repeat(150) },
    file(`implied/${'n'.repeat(120)}`, 'x'),
    file('d/.wh.gone', ''),
  ])
  const made = { 'a.tar': tar, 'a.tar.gz': gzipSync(tar), 'a.tar.zst': zstdCompressSync(tar) }
  for (const [name, bytes] of Object.entries(made)) await writeFile(join(folder, name), bytes)
  const corpus = Object.keys(made).map((name) => join(folder, name))
  corpus.push(...readdirSync(TARS).map((name) => join(TARS, name)))
  const { 'layer-fuzz': fuzz } = await buildNative({ only: ['layer-fuzz'] })
  const { stdout } = await promisify(execFile)(fuzz ?? '', ['1', '4000', ...corpus])
  t.regex(stdout, /^[1-9][0-9]* of 4000 inputs passed/)
})
