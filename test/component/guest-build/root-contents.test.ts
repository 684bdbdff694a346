import { spawnSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import test from 'ava'
import { mkfsErofs } from '#guest/build/build'
import { writeRootImage } from '#guest/build/erofs'
import { parseGuestLock } from '#guest/build/lock'
import { fileSha256 } from '#tools/cache/entry'
import { obtainPackages } from '#tools/debian/packages'
import { NATIVE_FILES, rootEntries } from '../../../guest/rootfs/contents.ts'
import type { TarEntry } from '../../../guest/rootfs/tar.ts'
import { buildNative } from '../../../native/build.mjs'
import { scratchFolder } from './machine.ts'

const ROOT = new URL('../../../', import.meta.url)

let entries: readonly TarEntry[]
test.before(async (t) => {
  t.timeout(300_000)
  entries = await collect()
})

async function collect(): Promise<readonly TarEntry[]> {
  const lock = parseGuestLock(await readFile(new URL('guest/lock.json', ROOT), 'utf8'))
  const outputs = await buildNative({ only: Object.keys(NATIVE_FILES) })
  const path = (name: string) => outputs[name] ?? ''
  return rootEntries({
    debian: await obtainPackages(lock.debian.suite, lock.debian.packages),
    node: new URL(`node_modules/${lock.node.name}/${lock.node.file}`, ROOT).pathname,
    native: {
      init: path('init'),
      reaper: path('reaper'),
      guest: path('guest'),
      shared: path('shared'),
      'caisson-index': path('caisson-index'),
    },
    agent: { code: Buffer.from(''), cache: Buffer.from('') },
    signatures: Buffer.from(''),
  })
}

test('every library that a program or library asks for is in the root', async (t) => {
  const folder = await scratchFolder(t)
  const present = new Set(entries.map((entry) => basename(entry.path)))
  let programs = 0
  for (const entry of entries) {
    if (entry.kind !== 'file' || Buffer.from(entry.content.subarray(0, 4)).toString('latin1') !== '\x7fELF') continue
    programs += 1
    const file = join(folder, 'elf')
    await writeFile(file, entry.content)
    const { stdout } = spawnSync('readelf', ['--dynamic', file], { encoding: 'utf8' })
    for (const [, library = ''] of stdout.matchAll(/\(NEEDED\).*\[(.+)\]/g)) {
      t.true(present.has(library), `${entry.path} needs ${library}`)
    }
  }
  t.true(programs > 20)
})

test('every link leads to something in the root, or to where the guest writes', (t) => {
  const paths = new Set(entries.map((entry) => entry.path))
  for (const entry of entries) {
    if (entry.kind !== 'link') continue
    const target = new URL(entry.target, `file:///${entry.path}`).pathname.slice(1)
    t.true(paths.has(target) || /^(run|proc)\//.test(target), `${entry.path} → ${entry.target}`)
  }
})

test('programs are exactly these; nothing runs as its owner', (t) => {
  const executable = entries.filter((entry) => entry.kind === 'file' && (entry.mode & 0o111) !== 0)
  const programs = executable.map((entry) => entry.path).filter((path) => !/\.so(\.|$)/.test(path))
  t.deepEqual(programs.sort(), [
    'usr/bin/crun',
    'usr/lib/caisson/caisson-index',
    'usr/lib/caisson/node',
    'usr/lib/caisson/reaper',
    'usr/sbin/init',
    'usr/sbin/mke2fs',
  ])
  t.true(entries.every((entry) => entry.kind === 'link' || (entry.mode & 0o6000) === 0))
})

test.serial('the root is the same bytes when it is made elsewhere, under another umask', async (t) => {
  const mkfs = await mkfsErofs()
  const [here, there] = [await scratchFolder(t), await scratchFolder(t)]
  const first = await writeRootImage(entries, join(here, 'root.img'), mkfs)
  const [umask, temporary] = [process.umask(0o077), process.env.TMPDIR]
  t.teardown(() => {
    process.umask(umask)
    if (temporary === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = temporary
  })
  process.env.TMPDIR = there
  const second = await writeRootImage(await collect(), join(there, 'other.img'), mkfs)
  t.deepEqual(second, first)
  t.is(await fileSha256(join(there, 'other.img')), await fileSha256(join(here, 'root.img')))
  t.true(first.size <= 80 << 20)
})
