import test from 'ava'
import { MalformedError } from '#protocol/errors'
import { LAYOUT } from '../../../guest/rootfs/layout.ts'
import { encodeTar, type TarEntry } from '../../../guest/rootfs/tar.ts'

const file = (path: string, content = ''): TarEntry => ({
  kind: 'file',
  path,
  mode: 0o644,
  content: Buffer.from(content),
})
const archive = (...entries: TarEntry[]) => Buffer.concat([...encodeTar(entries)])

test('the archive is the same whatever the order of the entries', (t) => {
  t.deepEqual(archive(file('b', '2'), file('a', '1')), archive(file('a', '1'), file('b', '2')))
})

test('a header has owner 0, time 0, the size in octal and a checksum over itself', (t) => {
  const header = archive(file('etc/hosts', 'x'.repeat(600))).subarray(0, 512)
  t.is(header.subarray(0, 10).toString('latin1'), 'etc/hosts\0')
  const fields = ['0000644', '0000000', '0000000', '00000001130', '00000000000', '']
  t.is(header.subarray(100, 148).toString('latin1'), fields.join('\0'))
  t.is(header.subarray(257, 265).toString('latin1'), ['ustar', '00'].join('\0'))
  const sum = Buffer.concat([header.subarray(0, 148), Buffer.alloc(8, ' '), header.subarray(156)])
  t.is(
    header.subarray(148, 156).toString('latin1'),
    `${sum
      .reduce((a, b) => a + b, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
  )
})

test('contents are padded to whole blocks and two zero blocks end the archive', (t) => {
  t.is(archive().length, 1024)
  t.is(archive(file('a')).length, 512 + 1024)
  t.is(archive(file('a', 'x'.repeat(512))).length, 1024 + 1024)
  t.is(archive(file('a', 'x'.repeat(513))).length, 1536 + 1024)
})

test('a path that appears twice is refused', (t) => {
  const error = t.throws(() => archive(file('a'), file('b'), file('a')), { instanceOf: MalformedError })
  t.is(error?.code, 'ERR_ROOTFS_ENTRY')
})

test('a path longer than the format holds is refused, not cut', (t) => {
  t.notThrows(() => archive(file('a'.repeat(100))))
  t.is(t.throws(() => archive(file('a'.repeat(101))), { instanceOf: MalformedError })?.code, 'ERR_ROOTFS_ENTRY')
})

test('the layout has every place that PID 1 mounts on, and nothing set-user-id', (t) => {
  const directories = LAYOUT.filter((entry) => entry.kind === 'directory')
  for (const path of ['dev', 'proc', 'run', 'sys', 'tmp']) t.true(directories.some((entry) => entry.path === path))
  t.true(LAYOUT.every((entry) => entry.kind === 'link' || (entry.mode & 0o6000) === 0))
})
