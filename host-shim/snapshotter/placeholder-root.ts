/**
 * The root that containerd sees of a container whose layers it never fetched. It looks up the image's `USER` there before
 * it starts anything; every name gets a number that stands for "as the image says", and the guest looks it up in the image
 * that it verified.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { UNRESOLVED_ID } from '../node/container-request.ts'

const NAME = /^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/

/** @param users values of `USER` of the images that guests pull: "web", "web:staff", "1000" */
export async function fillPlaceholderRoot(directory: string, users: readonly string[]): Promise<void> {
  const names = (index: number): readonly string[] => [
    ...new Set(users.map((user) => user.split(':')[index] ?? '').filter((name) => NAME.test(name) && name !== 'root')),
  ]
  const passwd = [
    'root:x:0:0:root:/root:',
    ...names(0).map((name) => `${name}:x:${UNRESOLVED_ID}:${UNRESOLVED_ID}::/:`),
  ]
  const group = ['root:x:0:', ...names(1).map((name) => `${name}:x:${UNRESOLVED_ID}:`)]
  await mkdir(join(directory, 'etc'), { mode: 0o755 })
  await writeFile(join(directory, 'etc', 'passwd'), `${passwd.join('\n')}\n`, { mode: 0o644 })
  await writeFile(join(directory, 'etc', 'group'), `${group.join('\n')}\n`, { mode: 0o644 })
}
