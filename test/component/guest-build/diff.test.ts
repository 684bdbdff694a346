import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { fsckErofs, mkfsErofs } from '#guest/build/build'
import { diffGuests } from '#guest/build/diff'
import { writeRootImage } from '#guest/build/erofs'
import type { GuestImage } from '#guest/build/guest-image'
import { fileSha256 } from '#tools/cache/entry'
import { LAYOUT } from '../../../guest/rootfs/layout.ts'
import type { TarEntry } from '../../../guest/rootfs/tar.ts'
import { scratchFolder } from './machine.ts'

const file = (path: string, content: string): TarEntry => ({
  kind: 'file',
  path,
  mode: 0o755,
  content: Buffer.from(content),
})

/** A guest whose root has these files besides the layout. */
async function guest(t: ExecutionContext, entries: readonly TarEntry[], version: string): Promise<GuestImage> {
  const directory = await scratchFolder(t)
  const rootPath = join(directory, 'root.img')
  const kernelPath = join(directory, 'bzImage')
  await writeFile(kernelPath, 'kernel')
  const root = await writeRootImage([...LAYOUT, ...entries], rootPath, await mkfsErofs())
  const digest = 'a'.repeat(64)
  const kernel = { file: 'bzImage', size: 6, sha256: digest, source: 'linux', sourceSha256: digest, compiler: 'gcc' }
  return {
    directory,
    kernelPath,
    rootPath,
    manifest: {
      version: 1,
      kernel,
      root: { file: 'root.img', sha256: await fileSha256(rootPath), ...root },
      cmdline: { tpm: 'same', none: 'same' },
      packages: [{ kind: 'debian', name: 'crun', version, sha256: digest }],
    },
  }
}

test('two guests that differ in one file are told apart by that file', async (t) => {
  const same = file('usr/bin/same', 's')
  const a = await guest(t, [same, file('usr/bin/tool', 'one'), file('usr/bin/gone', 'x')], '1')
  const b = await guest(t, [same, file('usr/bin/tool', 'two')], '2')
  const fsck = await fsckErofs()
  const differences = await diffGuests(a, b, fsck)
  const outsideRoot = differences.filter(({ what }) => !what.startsWith('root.'))
  t.deepEqual(
    outsideRoot.map(({ what }) => what),
    ['package debian crun', '/usr/bin/gone', '/usr/bin/tool'],
  )
  t.is(outsideRoot.find(({ what }) => what === '/usr/bin/gone')?.b, undefined)
  t.regex(outsideRoot.find(({ what }) => what === '/usr/bin/tool')?.a ?? '', /^file, mode 755, 3 bytes, [0-9a-f]{64}$/)
  t.deepEqual(await diffGuests(a, a, fsck), [])
})

test('an image that is none is refused with a code', async (t) => {
  const a = await guest(t, [file('a', 'a')], '1')
  const b = await guest(t, [file('a', 'b')], '1')
  await writeFile(b.rootPath, Buffer.alloc(8192, 1))
  await t.throwsAsync(diffGuests(a, b, await fsckErofs()), { code: 'ERR_GUEST_EXTRACT' })
})
