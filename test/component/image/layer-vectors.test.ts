import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import test from 'ava'
import { encodeTar } from '#tools/nginx-image/tar'
import { buildNative } from '../../../native/build.mjs'
import { directory, file, filler } from './fixtures/image.ts'
import { nativeEngine, workspace } from './fixtures/workspace.ts'

const OCI = join(import.meta.dirname, '../../vectors/oci')
const TARS = join(OCI, 'tar-split/archive/tar/testdata')

interface Expected {
  readonly cases: readonly { readonly file: string; readonly err: string | null }[]
}

test.before(async () => {
  await buildNative({ only: ['shared', 'layer-fuzz'] })
})

async function scan(path: string, tar: Uint8Array): Promise<void> {
  const limits = { maxTarBytes: 1e9, maxRatio: 1e6 }
  const writer = nativeEngine.openLayer({ path, compression: 'none', salt: '00'.repeat(32), what: 'vector', ...limits })
  await writer.write(tar)
  await writer.finish()
}

const { cases }: Expected = JSON.parse(readFileSync(join(OCI, '_expected/tar-go.json'), 'utf8'))
for (const { file: name, err } of cases) {
  const tar = readFileSync(join(TARS, name))
  // What readers elsewhere make of sparse files is no layer here: the index could not show it.
  const refused = err !== null || name.includes('sparse')
  test(`${name} is ${refused ? 'refused' : 'taken'}, as its expected verdict says`, async (t) => {
    const path = join(await workspace(t), 'layer.tar')
    if (refused) await t.throwsAsync(scan(path, tar), { code: 'ERR_LAYER_ENTRY' })
    else await t.notThrowsAsync(scan(path, tar))
  })
}

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
