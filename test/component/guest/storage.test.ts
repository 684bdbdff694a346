import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'

test('mounts carry their flags and vanish, loop devices show the file and are given back', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caisson-storage-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const probe = join(import.meta.dirname, 'storage-probe.ts')
  const { stdout } = await promisify(execFile)('unshare', ['--mount', process.execPath, probe, folder])
  const told = JSON.parse(stdout)
  t.regex(told.options, / tmpfs rw,nosuid,nodev,.*size=64k/)
  t.deepEqual(told.after, [])
  t.is(told.size, 1 << 20)
  t.is(told.head, 'caisson!')
  t.regex(told.missing, /mount \/no\/such failed: ENOENT/)
})

test('a disk that takes only part of what is written is an error, not a success', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caisson-storage-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const disk = join(folder, 'disk')
  await writeFile(disk, '')
  const [limit, more] = [1 << 20, 1 << 21]
  const probe = join(import.meta.dirname, 'short-write-probe.ts')
  const write = async (bytes: number): Promise<string> => {
    const words = [`--fsize=${limit}`, process.execPath, probe, disk, String(bytes)]
    return (await promisify(execFile)('prlimit', words)).stdout
  }
  t.regex(await write(more), /^ERR_VOLUME_DISK: .*byte 1048576/)
  t.is(await write(limit), 'written')
  t.deepEqual(await readFile(disk), Buffer.alloc(limit, 1))
})
