import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { pushImage } from '#image/node/push'
import { pullImage } from '#image/pull/pull-image'
import { nodeCrypto } from '#protocol/node/crypto'
import { type LayerSource, writeImageLayout } from '#tools/nginx-image/layout'
import { encodeTar, type TarEntry } from '#tools/nginx-image/tar'
import { foreignLayers } from './fixtures/foreign-layers.ts'
import { ACCEPT_ANYTHING, directory, file, filler } from './fixtures/image.ts'
import { testIndexer } from './fixtures/indexer.ts'
import { mountImage } from './fixtures/mount.ts'
import { startRegistry } from './fixtures/registry.ts'
import { storeImage } from './fixtures/stored.ts'
import { listTree } from './fixtures/tree.ts'
import { umoci } from './fixtures/umoci.ts'
import { layerStore, nativeEngine, workspace } from './fixtures/workspace.ts'

const AT = 1_600_000_000

function at(entry: TarEntry, more: Partial<TarEntry> = {}): TarEntry {
  return { mtime: AT, ...entry, ...more }
}

const BASE: readonly TarEntry[] = [
  at({ path: '.', type: 'directory', mode: 0o755 }),
  at(directory('etc')),
  at(file('etc/passwd', 'root:x:0:0::/:\n')),
  at(file('etc/shadow', 'secret', 0o600), { uid: 0, gid: 42, mtime: AT + 7 }),
  at(directory('bin')),
  at(file('bin/su', filler(70_000), 0o4755)),
  at({ path: 'bin/su-link', type: 'hardlink', mode: 0o755, target: 'bin/su' }),
  at(file('bin/ping', 'x', 0o755), { xattrs: { 'user.note': 'text' } }),
  at({ path: 'bin/sh', type: 'symlink', mode: 0o777, target: '/bin/does-not-exist' }),
  at(directory('tmp', 0o1777)),
  at(directory('home'), { uid: 1000, gid: 1001 }),
  at(file('home/big', filler(1_000_000)), { uid: 4_000, gid: 100_000 }),
  at(directory('data')),
  at(file('data/old', 'old')),
  at(file('data/older', 'older')),
  at(directory('gone')),
  at(file('gone/a', 'a')),
  at(file('replaced', 'a file at first')),
  at(file('empty', '')),
]

const MIDDLE: readonly TarEntry[] = [
  at({ path: '.', type: 'directory', mode: 0o755 }),
  at(directory('etc', 0o750), { mtime: AT + 100 }),
  at(file('etc/passwd', 'root:x:0:0::/:\nuser:x:1000:1001::/home:\n')),
  at(directory('data')),
  at(file('data/.wh..wh..opq', '')),
  at(file('data/new', 'new')),
  at(file('.wh.gone', '')),
  at(file('.wh.replaced', '')),
]

const TOP: readonly TarEntry[] = [
  at({ path: '.', type: 'directory', mode: 0o711 }, { uid: 3 }),
  at(directory('replaced')),
  at(file('replaced/by', 'a directory')),
  at(directory('long')),
  at(directory(`long/${'x'.repeat(120)}`)),
  at(file(`long/${'x'.repeat(120)}/${'y'.repeat(200)}`, 'long')),
]

/** The image as umoci unpacks it, and as it is mounted after a pull. */
async function bothWays(
  t: ExecutionContext,
  layers: readonly LayerSource[],
): Promise<{ ours: string; theirs: string }> {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const layout = join(folder, 'layout')
  writeImageLayout(layout, { layers, config: {} })
  execFileSync('skopeo', ['copy', '-q', `oci:${layout}`, `oci:${folder}/tagged:t`])
  execFileSync(await umoci(), ['unpack', '--image', `${folder}/tagged:t`, `${folder}/bundle`], { stdio: 'ignore' })

  const client = registry.client()
  const pushed = await pushImage({ layout, reference: `${registry.host}/compare:1`, registry: client })
  await mkdir(join(folder, 'store'))
  const image = await pullImage({
    reference: pushed.reference,
    registry: client,
    signaturePolicy: ACCEPT_ANYTHING,
    crypto: nodeCrypto,
    store: layerStore(join(folder, 'store')),
    engine: nativeEngine,
    indexer: await testIndexer(),
  })
  return { ours: mountImage(t, folder, image), theirs: join(folder, 'bundle/rootfs') }
}

const gzip = (entries: LayerSource['entries']): LayerSource => ({ compression: 'gzip', entries })
const zstd = (entries: LayerSource['entries']): LayerSource => ({ compression: 'zstd', entries })
const gzipped = (tar: Uint8Array): LayerSource => ({ compression: 'gzip', entries: [], tar })

test('the mounted layers are what umoci unpacks: owners, modes, times, links, attributes, whiteouts', async (t) => {
  const { ours, theirs } = await bothWays(t, [BASE, MIDDLE, TOP].map(gzip))
  const seen = listTree(ours)
  t.true(seen.length > 15)
  t.deepEqual(seen, listTree(theirs))
})

test('zstd layers are mounted as umoci unpacks them', async (t) => {
  const { ours, theirs } = await bothWays(t, [zstd(BASE), gzip(MIDDLE), zstd(TOP)])
  const seen = listTree(ours)
  t.true(seen.length > 15)
  t.deepEqual(seen, listTree(theirs))
})

test('layers of other tools are what umoci unpacks: links and folders of lower layers, devices, set-id, duplicates', async (t) => {
  const { base, top } = foreignLayers(await workspace(t))
  const { ours, theirs } = await bothWays(t, [gzipped(base), gzipped(top)])
  const seen = listTree(ours)
  t.true(seen.length > 30)
  t.deepEqual(seen, listTree(theirs))
})

test('sparse files of every format are what umoci unpacks, or GNU tar where umoci cannot', async (t) => {
  const folder = await workspace(t)
  for (const [format, tar] of foreignLayers(folder).sparse) {
    const { ours, theirs } = format === 'gnu' ? await besideGnuTar(t, tar) : await bothWays(t, [gzipped(tar)])
    const seen = listTree(ours)
    t.is(seen.length, 5, format)
    t.deepEqual(seen, listTree(theirs), format)
  }
})

async function besideGnuTar(t: ExecutionContext, tar: Uint8Array): Promise<{ ours: string; theirs: string }> {
  const folder = await workspace(t)
  const theirs = join(folder, 'unpacked')
  await mkdir(theirs)
  execFileSync('tar', ['--numeric-owner', '-C', theirs, '-xf', '-'], { input: tar })
  return { ours: mountImage(t, folder, await storeImage(folder, [tar])), theirs }
}

test('directories that a layer only implies belong to root and are writable for root alone', async (t) => {
  const folder = await workspace(t)
  const deep = `${'d'.repeat(120)}/e`
  const image = await storeImage(folder, [encodeTar([file('a/b/c', 'x'), file(`${deep}/f`, 'y')])])
  const lines = listTree(mountImage(t, folder, image)).filter((line) => line.includes(' 0o4'))
  t.is(lines.length, 5)
  for (const line of lines) t.regex(line, /^\S+ 0o40755 0 0 mtime=0/)
})

test('what the kernel reads through the index is what the tar holds', async (t) => {
  const folder = await workspace(t)
  const sizes = [0, 1, 511, 512, 513, 4095, 4096, 4097, 100_000]
  const image = await storeImage(folder, [encodeTar(sizes.map((size) => file(`f${size}`, filler(size))))])
  const mounted = mountImage(t, folder, image)
  for (const size of sizes) t.true(readFileSync(join(mounted, `f${size}`)).equals(filler(size)), `${size}`)
})
