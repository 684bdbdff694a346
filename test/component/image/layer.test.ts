import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { crc32, deflateRawSync, gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import test from 'ava'
import type { FinishedLayer, LayerVerity, OpenLayerOptions } from '#image/layer/engine'
import { runProgram } from '#image/node/run-program'
import type { Digest } from '#protocol/oci/digest'
import { encodeTar, type TarEntry } from '#tools/nginx-image/tar'
import { buildNative } from '../../../native/build.mjs'
import { directory, file, filler } from './fixtures/image.ts'
import { storeImage, storeLayer } from './fixtures/stored.ts'
import { nativeEngine, workspace } from './fixtures/workspace.ts'

const run = promisify(execFile)
const SALT = createHash('sha256').update('salt').digest('hex')

test.before(async () => {
  await buildNative({ only: ['shared', 'caisson-index'] })
})

async function stream(
  compressed: Uint8Array,
  options: Partial<OpenLayerOptions> & { path: string },
  step = 65_536,
): Promise<FinishedLayer> {
  const writer = nativeEngine.openLayer({
    cataloguePath: `${options.path}.entries`,
    compression: 'none',
    salt: SALT,
    maxTarBytes: 100_000_000,
    maxRatio: 1100,
    what: 'layer',
    ...options,
  })
  for (let at = 0; at < compressed.byteLength; at += step) await writer.write(compressed.subarray(at, at + step))
  return await writer.finish()
}

/** The judgement of cryptsetup's own implementation. It takes no writable copy of ours, hence the copy. */
async function veritysetup(path: string, verity: LayerVerity): Promise<void> {
  const copy = `${path}.copy`
  await copyFile(path, copy)
  await run('veritysetup', [
    'verify',
    copy,
    copy,
    verity.rootHash,
    '--no-superblock',
    '--format=1',
    '--hash=sha256',
    `--data-block-size=${verity.dataBlockSize}`,
    `--hash-block-size=${verity.hashBlockSize}`,
    `--data-blocks=${verity.dataBlocks}`,
    `--hash-offset=${verity.hashOffset}`,
    `--salt=${verity.salt}`,
  ])
  await rm(copy)
}

// 128 digests of 512-byte blocks fill a hash block, and 128 hash blocks the next level: sizes around the steps.
const CONTENTS = [0, 60_000, 62_976, 63_000, 8_380_000, 8_390_000]

test('the tree of a tar of any size is the one that veritysetup computes', async (t) => {
  const folder = await workspace(t)
  for (const size of CONTENTS) {
    const path = join(folder, `${size}.tar`)
    const { verity } = await stream(encodeTar([directory('.'), file('f', filler(size))]), { path })
    await t.notThrowsAsync(veritysetup(path, verity), `${size}`)
    const bytes = await readFile(path)
    bytes[verity.dataBlocks * 512 - 1600] = 1
    await writeFile(path, bytes)
    await t.throwsAsync(veritysetup(path, verity), undefined, `${size}, changed`)
  }
})

test('a tree is appended to any file, padded to its blocks', async (t) => {
  const folder = await workspace(t)
  for (const size of [0, 1, 511, 512, 4096, 65_536, 65_537, 8_388_609]) {
    const path = join(folder, `${size}`)
    await writeFile(path, filler(size))
    const verity = await nativeEngine.appendVerity(path, SALT, 'file')
    await t.notThrowsAsync(veritysetup(path, verity), `${size}`)
    t.true((await readFile(path)).subarray(0, size).equals(filler(size)))
  }
})

const TAR = encodeTar([directory('.'), directory('d'), file('d/f', filler(700_000)), file('d/g', 'g')])

function sha256(bytes: Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** A member with the optional fields of RFC 1952 2.3, which Node's own compressor never writes. */
function gzipMember(
  content: Uint8Array,
  fields: { extra?: Buffer; name?: string; comment?: string; checksum?: boolean },
): Buffer {
  const { extra, name, comment, checksum } = fields
  const flags =
    (checksum ? 2 : 0) | (extra === undefined ? 0 : 4) | (name === undefined ? 0 : 8) | (comment === undefined ? 0 : 16)
  const number = (value: number, bytes: number): Buffer => {
    const buffer = Buffer.alloc(bytes)
    buffer.writeUIntLE(value, 0, bytes)
    return buffer
  }
  const header = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3]),
    ...(extra === undefined ? [] : [number(extra.byteLength, 2), extra]),
    ...(name === undefined ? [] : [Buffer.from(`${name}\0`)]),
    ...(comment === undefined ? [] : [Buffer.from(`${comment}\0`)]),
  ])
  return Buffer.concat([
    header,
    ...(checksum ? [number(crc32(header) & 0xffff, 2)] : []),
    deflateRawSync(content),
    number(crc32(content), 4),
    number(content.byteLength, 4),
  ])
}

test('both digests, and the same tar, whatever the compression and however the bytes arrive', async (t) => {
  const folder = await workspace(t)
  const half = TAR.byteLength >> 1
  const skippable = Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1, 2, 3, 4, 5])
  const forms = [
    ['none', TAR],
    ['gzip', gzipSync(TAR)],
    ['gzip', Buffer.concat([gzipSync(TAR.subarray(0, half)), gzipSync(TAR.subarray(half))])],
    ['zstd', zstdCompressSync(TAR)],
    ['zstd', Buffer.concat([skippable, zstdCompressSync(TAR.subarray(0, half)), zstdCompressSync(TAR.subarray(half))])],
  ] as const
  let number = 0
  for (const [compression, compressed] of forms) {
    for (const step of [4_099, compressed.byteLength]) {
      const path = join(folder, `${number++}.tar`)
      const finished = await stream(compressed, { path, compression }, step)
      t.is(finished.compressedDigest, sha256(compressed))
      t.is(finished.diffId, sha256(TAR))
      t.is(finished.tarBytes, TAR.byteLength)
      t.true((await readFile(path)).subarray(0, TAR.byteLength).equals(TAR))
    }
  }
})

test('gzip members are read whatever their headers hold, in portions of any size', async (t) => {
  const folder = await workspace(t)
  const tar = encodeTar([file('a', filler(3_000))])
  const members = [
    gzipMember(tar.subarray(0, 700), {
      extra: Buffer.alloc(300, 7),
      name: 'a.tar',
      comment: 'made here',
      checksum: true,
    }),
    gzipMember(tar.subarray(700, 701), { name: '' }),
    gzipMember(tar.subarray(701, 701), { extra: Buffer.alloc(0) }),
    gzipMember(tar.subarray(701), { checksum: true }),
  ]
  const compressed = Buffer.concat(members)
  t.deepEqual(gunzipSync(compressed), Buffer.from(tar), 'as another implementation reads it')
  for (let step = 1; step < 40; step++) {
    const { diffId } = await stream(compressed, { path: join(folder, `${step}.tar`), compression: 'gzip' }, step)
    t.is(diffId, sha256(tar), `${step}`)
  }
})

test('a gzip member whose header or trailer is wrong is refused, in portions of any size', async (t) => {
  const folder = await workspace(t)
  const good = gzipMember(encodeTar([file('a', 'a')]), { name: 'a', checksum: true })
  // Magic, method, a reserved flag, the header's checksum, the content's checksum and size.
  const places = [0, 1, 2, 3, 12, 13, good.byteLength - 8, good.byteLength - 1]
  let number = 0
  for (const at of places) {
    const bad = Buffer.from(good)
    bad[at] = (bad[at] ?? 0) ^ 0x80
    for (const step of [1, 3, 7, good.byteLength]) {
      const path = join(folder, `${number++}.tar`)
      await t.throwsAsync(stream(bad, { path, compression: 'gzip' }, step), { code: 'ERR_LAYER_CORRUPT' }, `${at}`)
    }
  }
})

test('a stream that ends early, goes on after its end, or is of another format is refused', async (t) => {
  const folder = await workspace(t)
  let number = 0
  const refused = async (compression: 'gzip' | 'zstd', bytes: Uint8Array, code: RegExp): Promise<void> => {
    const error = await t.throwsAsync<Error & { code?: string }>(
      stream(bytes, { path: join(folder, `${number++}.tar`), compression }),
    )
    t.regex(error?.code ?? '', code)
  }
  const small = encodeTar([file('a', 'a')])
  for (const [compression, bytes] of [
    ['gzip', gzipSync(small)],
    ['zstd', zstdCompressSync(small)],
  ] as const) {
    for (let length = 0; length < bytes.byteLength; length++) {
      await refused(compression, bytes.subarray(0, length), /^ERR_LAYER_TRUNCATED$/)
    }
    await refused(compression, Buffer.concat([bytes, Buffer.from('junk')]), /^ERR_LAYER_(?:CORRUPT|TRUNCATED)$/)
    await refused(compression, Buffer.from('neither of the two formats'), /^ERR_LAYER_CORRUPT$/)
  }
  await refused('gzip', zstdCompressSync(small), /^ERR_LAYER_CORRUPT$/)
  await refused('zstd', gzipSync(small), /^ERR_LAYER_CORRUPT$/)
  // RFC 8878 3.1.1.1.4: a frame of 248 bytes, whose one block is empty.
  await refused('zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x20, 0xf8, 0x01, 0x00, 0x00]), /^ERR_LAYER_CORRUPT$/)
  // RFC 8878 3.1.1.1: a frame with a window descriptor of 2^41 bytes.
  await refused('zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00]), /^ERR_LAYER_WINDOW$/)
})

test('a file that is there already is not overwritten', async (t) => {
  const path = join(await workspace(t), 'there')
  await writeFile(path, 'mine')
  await t.throwsAsync(stream(TAR, { path }), { code: 'ERR_LAYER_FILE' })
  t.is(await readFile(path, 'utf8'), 'mine')
})

const LONG = 'x'.repeat(256)
const link = (path: string, target: string): TarEntry => ({ path, type: 'hardlink', mode: 0o644, target })

/** Hostile or broken, with what the message must say. None of them may reach a file, a mount, or an unbounded loop. */
const REFUSED: readonly (readonly [string, readonly TarEntry[], RegExp])[] = [
  ['a name that climbs out', [file('../../etc/passwd', 'x')], /"\.\." component/],
  ['a name that climbs and returns', [file('a/../b', 'x')], /"\.\." component/],
  ['a component that is too long', [file(LONG, 'x')], /255 bytes/],
  ['a name that is too long', [file(`${'d/'.repeat(2100)}f`, 'x')], /4096 bytes/],
  ['an attribute of overlayfs', [{ ...file('a', 'x'), xattrs: { 'trusted.overlay.redirect': '/etc' } }], /attribute/],
  ['an attribute of overlayfs for users', [{ ...file('a', 'x'), xattrs: { 'user.overlay.opaque': 'y' } }], /attribute/],
  ['a label of a security module', [{ ...file('a', 'x'), xattrs: { 'security.selinux': 'x' } }], /attribute/],
  ['a whiteout of nothing', [file('.wh.', '')], /whiteout of nothing/],
  ['a whiteout of the parent', [file('a/.wh...', '')], /whiteout of nothing/],
  ['a whiteout that is a directory', [directory('.wh.a')], /empty file/],
  ['a whiteout with content', [file('.wh.a', 'content')], /empty file/],
  ['a file below a whiteout', [file('a/.wh.b/c', 'x')], /below a whiteout/],
  ['a root that is a file', [file('.', 'x')], /root/],
]

for (const [title, entries, message] of REFUSED) {
  test(`refused while streaming: ${title}`, async (t) => {
    const path = join(await workspace(t), 'layer.tar')
    const error = await t.throwsAsync(stream(encodeTar(entries), { path }), { code: 'ERR_LAYER_ENTRY' })
    t.regex(error?.message ?? '', message)
  })
}

const symlink = (path: string, target: string): TarEntry => ({ path, type: 'symlink', mode: 0o777, target })

const NOT_INDEXED: readonly (readonly [string, readonly TarEntry[], RegExp])[] = [
  ['a hard link to nothing', [link('a', 'b')], /entry "a": it is a hard link to what neither/],
  ['a hard link to a directory', [directory('d'), link('a', 'd')], /hard link to a directory/],
  ['a file below a file', [file('a', 'x'), file('a/b', 'y')], /should be a directory/],
  ['links that lead in a circle', [symlink('a', 'b'), symlink('b', 'a'), file('a/f', 'x')], /40 symbolic links/],
  [
    'a tree that links make ever deeper',
    Array.from({ length: 6 }, (_, number) => [
      directory(`${number === 0 ? '' : `l${number - 1}/`}${'d/'.repeat(250)}e`),
      symlink(`l${number}`, `${number === 0 ? '' : `l${number - 1}/`}${'d/'.repeat(250)}e`),
    ]).flat(),
    /1024 directories deep/,
  ],
]

for (const [title, entries, message] of NOT_INDEXED) {
  test(`refused by the indexer: ${title}`, async (t) => {
    const error = await t.throwsAsync(storeImage(await workspace(t), [encodeTar(entries)]), { code: 'ERR_LAYER_INDEX' })
    t.regex(error?.message ?? '', message)
  })
}

test('a tar that is cut anywhere, or has a changed header byte, is refused or is another tar', async (t) => {
  const folder = await workspace(t)
  const tar = encodeTar([directory('d'), file('d/a', 'content'), { ...file('d/b', 'x'), xattrs: { 'user.a': 'b' } }])
  let number = 0
  for (let length = 1; length < tar.byteLength - 1024; length += 97) {
    if (length % 512 === 0) continue
    const path = join(folder, `${number++}`)
    await t.throwsAsync(stream(tar.subarray(0, length), { path }), { code: 'ERR_LAYER_ENTRY' })
  }
  for (let at = 0; at < 512; at += 7) {
    const changed = Uint8Array.from(tar)
    changed[at] = (changed[at] ?? 0) ^ 0x55
    await t.throwsAsync(stream(changed, { path: join(folder, `${number++}`) }), { code: 'ERR_LAYER_ENTRY' }, `${at}`)
  }
})

test('an extended header at the end speaks about no entry, and is refused', async (t) => {
  const folder = await workspace(t)
  // The header and its records; with the entry behind them they are good.
  const tar = encodeTar([{ ...file('a', ''), xattrs: { 'user.a': 'b' } }]).subarray(0, 1536)
  await t.notThrowsAsync(stream(tar, { path: join(folder, 'good') }))
  const end = new Uint8Array(1024)
  for (const [name, bytes] of [
    ['with an end', Buffer.concat([tar.subarray(0, 1024), end])],
    ['without an end', tar.subarray(0, 1024)],
  ] as const) {
    await t.throwsAsync(stream(bytes, { path: join(folder, name) }), { code: 'ERR_LAYER_ENTRY' }, name)
  }
})

const DENIED = { socket: 'EPERM', read: 'EPERM', create: 'EPERM', kill: 'EPERM', exec: 'EPERM', fork: 'EPERM' }

test('whoever took over the indexer finds no network, files, processes, memory or time', async (t) => {
  const folder = await workspace(t)
  const { 'confined-probe': probe = '' } = await buildNative({ only: ['confined-probe'] })
  let number = 0
  const tried = (what: string) => runProgram(probe, [what, join(folder, `out-${number++}`)], { timeoutMs: 20_000 })
  for (const [what, expected] of Object.entries({ ...DENIED, memory: 'ENOMEM', file: 'EFBIG' })) {
    const { code, stdout } = await tried(what)
    t.is(code, 0, what)
    t.is(new TextDecoder().decode(stdout).trim(), expected, what)
  }
  t.is((await tried('time')).code, 124)
})

test('an index that would be too large, or takes too much memory to make, is refused', async (t) => {
  const folder = await workspace(t)
  const { 'caisson-index': program = '' } = await buildNative({ only: ['caisson-index'] })
  const target = 't'.repeat(4000)
  const entries = Array.from({ length: 1000 }, (_, number) => symlink(`${number}`, target))
  const { cataloguePath } = await storeLayer(folder, 'links', encodeTar(entries))
  const index = (name: string, memory: string, size: string) =>
    runProgram(program, [join(folder, name), '60', memory, size, cataloguePath], { timeoutMs: 90_000 })
  t.is((await index('good', '64', '16')).code, 0)
  const large = await index('large', '64', '1')
  t.is(large.code, 1)
  t.regex(new TextDecoder().decode(large.stderr), /larger than allowed/)
  t.is((await index('memory', '1', '16')).code, 134)
})
