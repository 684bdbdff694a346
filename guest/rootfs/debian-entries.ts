/** Picks the allowed files out of an unpacked Debian package. */
import { lstat, readFile, readlink } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { UnavailableError } from '#protocol/errors'
import { DEBIAN_FILES } from './debian-files.ts'
import type { TarEntry } from './tar.ts'

/**
 * The entries of package `name`, unpacked at `root`. Only plain files and links to allowed or linked-to files enter, with
 * their mode reduced to readable or executable. Throws ERR_ROOTFS_PACKAGE when an allowed file is not there.
 */
export async function debianEntries(name: string, root: string): Promise<readonly TarEntry[]> {
  const entries = new Map<string, TarEntry>()
  const pending = [...(DEBIAN_FILES[name] ?? [])]
  for (let path = pending.shift(); path !== undefined; path = pending.shift()) {
    if (entries.has(path)) continue
    const entry = await readEntry(name, root, path)
    entries.set(path, entry)
    if (entry.kind === 'link') pending.push(targetOf(entry))
  }
  return [...entries.values()]
}

async function readEntry(name: string, root: string, path: string): Promise<TarEntry> {
  const file = join(root, path)
  const stat = await lstat(file).catch(() => undefined)
  if (stat?.isSymbolicLink() === true) return { kind: 'link', path, target: await readlink(file) }
  if (stat?.isFile() !== true) {
    throw new UnavailableError('ERR_ROOTFS_PACKAGE', `Debian package ${name} has no file ${path}`, {
      hint: 'The package changed its layout: correct guest/rootfs/debian-files.ts.',
    })
  }
  return { kind: 'file', path, mode: (stat.mode & 0o111) === 0 ? 0o644 : 0o755, content: await readFile(file) }
}

/** Links are relative in Debian's libraries; one that leaves the package fails as a missing file. */
function targetOf(entry: { path: string; target: string }): string {
  return entry.target.startsWith('/')
    ? entry.target.slice(1)
    : posix.normalize(posix.join(posix.dirname(entry.path), entry.target))
}
