/**
 * Why two built guests are not the same: what their manifests say differently, then the roots file by file. The images
 * are extracted, not mounted, so it needs no privilege.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstat, mkdtemp, readdir, readFile, readlink, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, posix } from 'node:path'
import { promisify } from 'node:util'
import { errorText, UnavailableError } from '#protocol/errors'
import type { GuestImage, GuestManifest } from './guest-image.ts'

const run = promisify(execFile)

export interface GuestDifference {
  /** A member of the manifest ("kernel.sha256"), a package ("package debian crun") or a path ("/usr/sbin/init"). */
  readonly what: string
  /** What each has; undefined where it has nothing of the kind. */
  readonly a: string | undefined
  readonly b: string | undefined
}

/** @param fsck path of fsck.erofs, which extracts. Throws ERR_GUEST_EXTRACT when an image cannot be read. */
export async function diffGuests(a: GuestImage, b: GuestImage, fsck: string): Promise<readonly GuestDifference[]> {
  const manifests = compare(describeManifest(a.manifest), describeManifest(b.manifest))
  if (a.manifest.root.sha256 === b.manifest.root.sha256) return manifests
  const files = compare(await describeRoot(a.rootPath, fsck), await describeRoot(b.rootPath, fsck))
  const layout = { what: 'root: every file is equal, their place in the image is not', a: '', b: '' }
  return [...manifests, ...(files.length > 0 ? files : [layout])]
}

type Description = ReadonlyMap<string, string>

function compare(a: Description, b: Description): readonly GuestDifference[] {
  const names = [...new Set([...a.keys(), ...b.keys()])].toSorted()
  return names.filter((what) => a.get(what) !== b.get(what)).map((what) => ({ what, a: a.get(what), b: b.get(what) }))
}

export function describeManifest({ kernel, root, cmdline, packages }: GuestManifest): Description {
  const members = Object.entries({ kernel, root, cmdline }).flatMap(([part, values]) =>
    Object.entries(values).map(([name, value]): [string, string] => [`${part}.${name}`, String(value)]),
  )
  const contents = packages.map(({ kind, name, version, sha256 }): [string, string] => [
    `package ${kind} ${name}`,
    `${version} ${sha256}`,
  ])
  return new Map([...members, ...contents])
}

/** Path → type, mode, owner, and link target or size and digest. */
async function describeRoot(image: string, fsck: string): Promise<Description> {
  const scratch = await mkdtemp(join(tmpdir(), 'caisson-diff-'))
  const tree = join(scratch, 'root')
  try {
    await run(fsck, [`--extract=${tree}`, '--preserve-perms', '--no-preserve-owner', image])
    return await describeTree(tree)
  } catch (cause) {
    throw new UnavailableError('ERR_GUEST_EXTRACT', `${image} could not be extracted: ${errorText(cause)}`, { cause })
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** The files of a folder, without owners and times: the image gives all of them the same. Links are not followed. */
export async function describeTree(folder: string): Promise<Description> {
  const description = new Map<string, string>()
  const pending = ['/']
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const file = join(folder, path)
    const stat = await lstat(file)
    const mode = `mode ${(stat.mode & 0o7777).toString(8)}`
    if (stat.isSymbolicLink()) description.set(path, `link to ${await readlink(file)}`)
    else if (stat.isFile()) description.set(path, `file, ${mode}, ${stat.size} bytes, ${sha256(await readFile(file))}`)
    else if (stat.isDirectory()) {
      description.set(path, `directory, ${mode}`)
      for (const name of await readdir(file)) pending.push(posix.join(path, name))
    } else description.set(path, `special file, ${mode}`)
  }
  return description
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
