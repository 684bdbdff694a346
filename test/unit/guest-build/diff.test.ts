import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { describeTree } from '#guest/build/diff'

test('a tree is described file by file: kind, mode, size and content, and links are not followed', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'caisson-diff-'))
  t.teardown(() => rm(folder, { recursive: true }))
  await chmod(folder, 0o755)
  await mkdir(join(folder, 'usr'))
  await chmod(join(folder, 'usr'), 0o755)
  await writeFile(join(folder, 'usr/a'), 'a')
  await chmod(join(folder, 'usr/a'), 0o640)
  await symlink('usr', join(folder, 'link'))
  t.deepEqual(Object.fromEntries(await describeTree(folder)), {
    '/': 'directory, mode 755',
    '/link': 'link to usr',
    '/usr': 'directory, mode 755',
    '/usr/a': 'file, mode 640, 1 bytes, ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb',
  })
})
