/** What a directory takes on disk. */
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'

/** Bytes in blocks that are in use, each file once however many names it has. */
export async function diskUsage(directory: string): Promise<{ readonly size: bigint; readonly inodes: bigint }> {
  const seen = new Set<bigint>()
  let size = 0n
  const visit = async (path: string): Promise<void> => {
    const status = await lstat(path, { bigint: true }).catch(() => undefined)
    if (status === undefined || seen.has(status.ino)) return
    seen.add(status.ino)
    size += status.blocks * 512n
    if (!status.isDirectory()) return
    for (const name of await readdir(path)) await visit(join(path, name))
  }
  await visit(directory)
  return { size, inodes: BigInt(seen.size) }
}
