import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
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
