/** Which processes hold the other end of a loopback connection, as control groups. */
import { constants } from 'node:fs'
import { open, readdir, readFile, readlink } from 'node:fs/promises'
import { UnavailableError } from '#protocol/errors'
import { clientInode, parseSocketTable } from '../socket-table.ts'
import { nodeFiles } from './files.ts'

/** 150 bytes for each connection of the guest. */
const MAX_TABLE_BYTES = 4 * 1024 * 1024
/** Descriptors looked at, of all processes together: some tens of microseconds each. */
const MAX_DESCRIPTORS = 65_536
const MAX_CGROUP_BYTES = 4096

/** Empty when nobody holds it. Throws `UnavailableError` ERR_PEER when there is more than can be looked through. */
export async function localPeer(port: number, clientPort: number): Promise<readonly string[]> {
  const table = async (name: string): Promise<string> =>
    new TextDecoder().decode((await nodeFiles.readIfExists(`/proc/net/${name}`, MAX_TABLE_BYTES)) ?? new Uint8Array())
  const sockets = parseSocketTable(`${await table('tcp')}\n${await table('tcp6')}`)
  const inode = clientInode(sockets, port, clientPort)
  if (inode === undefined) return []
  const groups: string[] = []
  let budget = MAX_DESCRIPTORS
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    const found = await inspect(`/proc/${pid}`, `socket:[${inode}]`, budget)
    budget -= found.looked
    if (budget < 0) {
      throw new UnavailableError('ERR_PEER', `processes hold more than ${MAX_DESCRIPTORS} descriptors`, {
        hint: 'Close what is not needed, or give secrets as files.',
      })
    }
    if (found.cgroup !== undefined) groups.push(found.cgroup)
  }
  return groups
}

/** Through a descriptor of its directory, so that it is one process: a number that is given to another one ends here. */
async function inspect(
  path: string,
  link: string,
  budget: number,
): Promise<{ readonly cgroup: string | undefined; readonly looked: number }> {
  let looked = 0
  try {
    await using directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    const process = `/proc/self/fd/${directory.fd}`
    for (const descriptor of await readdir(`${process}/fd`)) {
      if (++looked > budget) break
      if ((await linkOf(`${process}/fd/${descriptor}`)) !== link) continue
      return { cgroup: cgroupOf(await readFile(`${process}/cgroup`, 'utf8')), looked }
    }
  } catch (error) {
    if (!isGone(error)) throw error
  }
  return { cgroup: undefined, looked }
}

async function linkOf(path: string): Promise<string | undefined> {
  try {
    return await readlink(path)
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

/** Of the unified hierarchy, cgroups(7): "0::/caisson/c1". A process without one is nobody's, and is still a holder. */
function cgroupOf(text: string): string {
  return /^0::(.*)$/m.exec(text.slice(0, MAX_CGROUP_BYTES))?.[1] ?? ''
}

function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH')
}
