import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { nodeFiles } from '#guest/platform/node/files'

test('a directory has the mode it was given, whatever the file mode creation mask is', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-files-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  t.not(process.umask() & 0o022, 0, 'under a mask that takes nothing away this shows nothing')
  const path = join(folder, 'volumes', 'c1', '0')
  await nodeFiles.mkdir(path, 0o777)
  t.is(statSync(path).mode & 0o7777, 0o777)
  await nodeFiles.mkdir(path, 0o700)
  t.is(statSync(path).mode & 0o7777, 0o777, 'an existing directory stays as it is')
})

test('the end of a file is read, also where its size is only said, and nothing of a file that is not there', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-files-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'message')
  t.deepEqual(await nodeFiles.readEnd(path, 4), new Uint8Array())
  writeFileSync(path, 'last words')
  t.deepEqual(await nodeFiles.readEnd(path, 100), new TextEncoder().encode('last words'))
  t.deepEqual(await nodeFiles.readEnd(path, 5), new TextEncoder().encode('words'))
  truncateSync(path, 2 ** 40)
  t.deepEqual(await nodeFiles.readEnd(path, 4), new Uint8Array(4))
})

test('a directory can be given mode and times of another, the sticky bit too', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'caisson-files-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const [from, to] = [join(folder, 'from'), join(folder, 'to')]
  mkdirSync(from)
  chmodSync(from, 0o1751)
  utimesSync(from, 1_500_000_000, 1_400_000_000)
  mkdirSync(to)
  await nodeFiles.copyAttributes(from, to)
  const { mode, mtimeMs, uid, gid } = statSync(to)
  t.deepEqual({ mode: mode & 0o7777, mtimeMs }, { mode: 0o1751, mtimeMs: 1_400_000_000_000 })
  t.deepEqual([uid, gid], [statSync(from).uid, statSync(from).gid])
})
