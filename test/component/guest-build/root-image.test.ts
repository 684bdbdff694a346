import { execFileSync, spawnSync } from 'node:child_process'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { mkfsErofs } from '#guest/build/build'
import { writeRootImage } from '#guest/build/erofs'
import { LAYOUT } from '../../../guest/rootfs/layout.ts'
import type { TarEntry } from '../../../guest/rootfs/tar.ts'
import { scratchFolder } from './machine.ts'

const file = (path: string, content: Uint8Array): TarEntry => ({ kind: 'file', path, mode: 0o755, content })

/** Layout plus something that compresses and something that does not. */
function entries(): readonly TarEntry[] {
  const noise = Buffer.from(Array.from({ length: 300_000 }, (_, n) => (Math.imul(n, 2654435761) >>> 13) & 255))
  return [...LAYOUT, file('usr/bin/zeroes', Buffer.alloc(1 << 20)), file('usr/bin/noise', noise)]
}

async function writeImage(t: ExecutionContext, list: readonly TarEntry[]) {
  const path = join(await scratchFolder(t), 'root.img')
  return { path, ...(await writeRootImage(list, path, await mkfsErofs())) }
}

/** Exit status of `veritysetup verify`: the reference implementation's opinion. */
function veritysetup(image: Awaited<ReturnType<typeof writeImage>>, rootHash = image.rootHash) {
  const layout = ['--no-superblock', '--format=1', '--hash=sha256', '--data-block-size=4096', '--hash-block-size=4096']
  const place = [`--data-blocks=${image.dataBlocks}`, `--hash-offset=${image.hashOffset}`, `--salt=${image.salt}`]
  const args = ['verify', ...layout, ...place, image.path, image.path, rootHash]
  return spawnSync('/usr/sbin/veritysetup', args, { encoding: 'utf8' }).status
}

test('veritysetup verifies the tree, and refuses it after one flipped bit', async (t) => {
  const image = await writeImage(t, entries())
  t.is(veritysetup(image), 0)
  const bytes = await readFile(image.path)
  t.is(bytes.length, image.size)
  bytes[image.hashOffset - 1] = (bytes[image.hashOffset - 1] ?? 0) ^ 1
  await writeFile(image.path, bytes)
  t.not(veritysetup(image), 0)
})

test('veritysetup refuses another root hash', async (t) => {
  t.not(veritysetup(await writeImage(t, entries()), 'ab'.repeat(32)), 0)
})

test('equal entries give equal images, whatever their order, the folder and the umask', async (t) => {
  const first = await writeImage(t, entries())
  const previous = process.umask(0o077)
  t.teardown(() => process.umask(previous))
  const second = await writeImage(t, entries().toReversed())
  t.true((await readFile(first.path)).equals(await readFile(second.path)))
})

test('the image has owner root, time zero and the modes of the entries', async (t) => {
  const image = await writeImage(t, entries())
  await truncate(image.path, image.hashOffset)
  const dump = (path: string) =>
    execFileSync('dump.erofs', ['--path', path, image.path], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  t.regex(dump('/usr/bin/noise'), /Uid: 0 +Gid: 0 +Access: 0755/)
  t.regex(dump('/usr/bin/noise'), /Timestamp: 1970-01-01/)
  t.regex(dump('/proc'), /Access: 0555/)
})
