import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { createUserFiles, writeUserFile } from '#cli/files'

function folderOf(t: ExecutionContext): string {
  const folder = fs.mkdtempSync(join(tmpdir(), 'caisson-files-'))
  t.teardown(() => fs.rmSync(folder, { recursive: true }))
  return folder
}

/** What `work` brings to the disk, and where a file gets its name, in order; everything really happens. */
function diskCalls(t: ExecutionContext, work: () => void): readonly string[] {
  const calls: string[] = []
  const { fsyncSync, renameSync } = fs
  const restore = (): void => {
    Object.assign(fs, { fsyncSync, renameSync })
    syncBuiltinESMExports()
  }
  t.teardown(restore)
  fs.fsyncSync = (fd) => {
    calls.push(`sync ${fs.readlinkSync(`/proc/self/fd/${fd}`)}`)
    fsyncSync(fd)
  }
  fs.renameSync = (from, to) => {
    calls.push(`rename ${String(from)} ${String(to)}`)
    renameSync(from, to)
  }
  syncBuiltinESMExports()
  work()
  restore()
  return calls
}

test.serial(
  'a file that replaces another is on the disk before it has its name, and its name is before we go on',
  (t) => {
    const folder = folderOf(t)
    const path = join(folder, 'a')
    fs.writeFileSync(path, 'old')
    const temporary = `${path}.${process.pid}.new`
    const calls = diskCalls(t, () => writeUserFile(path, 'new', 0o600))
    t.deepEqual(calls, [`sync ${temporary}`, `rename ${temporary} ${path}`, `sync ${folder}`])
    t.is(fs.readFileSync(path, 'utf8'), 'new')
    t.is(fs.statSync(path).mode & 0o777, 0o600)
  },
)

test.serial('a key is on the disk, with its name, before anything is locked with it', (t) => {
  const folder = folderOf(t)
  const path = join(folder, 'key')
  t.deepEqual(
    diskCalls(t, () => createUserFiles([{ path, bytes: 'secret', mode: 0o600 }], 'hint')),
    [`sync ${path}`, `sync ${folder}`],
  )
  t.is(fs.readFileSync(path, 'utf8'), 'secret')
  t.is(fs.statSync(path).mode & 0o777, 0o600)
})

test('of a pair of keys none is written where one is there already, also as a link to nothing', (t) => {
  const folder = folderOf(t)
  const [first, second] = [join(folder, 'a.key'), join(folder, 'a.pub')]
  const pair = [
    { path: first, bytes: '1', mode: 0o600 },
    { path: second, bytes: '2', mode: 0o644 },
  ]
  fs.writeFileSync(second, 'mine')
  t.throws(() => createUserFiles(pair, 'choose'), { code: 'ERR_FILE_EXISTS' })
  t.deepEqual(fs.readdirSync(folder), ['a.pub'])
  t.is(fs.readFileSync(second, 'utf8'), 'mine')
  fs.rmSync(second)
  fs.symlinkSync(join(folder, 'elsewhere'), second)
  t.throws(() => createUserFiles(pair, 'choose'), { code: 'ERR_FILE_EXISTS' })
  t.deepEqual(fs.readdirSync(folder), ['a.pub'])
})

test('where a file cannot be written, what was there stays and nothing is left beside it', (t) => {
  const folder = folderOf(t)
  t.throws(() => writeUserFile(join(folder, 'none', 'a'), 'x'), { code: 'ERR_FILE_UNWRITABLE' })
  fs.mkdirSync(join(folder, 'taken'))
  t.throws(() => writeUserFile(join(folder, 'taken'), 'x'), { code: 'ERR_FILE_UNWRITABLE' })
  t.deepEqual(fs.readdirSync(folder), ['taken'])
  const unwritable = [{ path: join(folder, 'none', 'a'), bytes: 'x', mode: 0o600 }]
  t.throws(() => createUserFiles(unwritable, 'choose'), { code: 'ERR_FILE_UNWRITABLE' })
})
