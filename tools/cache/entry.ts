/**
 * Directories of the cache, one per content hash of what they were made from. An entry appears whole or not at all: it
 * is made under a temporary name, listed file by file with SHA-256, and renamed. Using an entry hashes its files again.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { UnavailableError } from '#protocol/errors'
import { cacheDirectory } from './location.ts'

const LISTING = 'SHA256.json'

export interface CacheOptions {
  /** Make it again although it is there. */
  readonly force?: boolean
  /** How many entries of this kind stay when one is added: those used last. Default: all. */
  readonly keep?: number
  /** Told when a stored entry no longer has the content it had. */
  readonly onWarning?: (text: string) => void
}

/**
 * Directory of the entry `kind/key`, made by `make` when it is absent or damaged. Runs that want the same entry wait
 * for each other; a run that dies leaves nothing that the next one would use.
 */
export async function cachedDirectory(
  kind: string,
  key: string,
  make: (directory: string) => Promise<void>,
  options: CacheOptions = {},
): Promise<string> {
  const parent = join(cacheDirectory(), kind)
  const entry = join(parent, key)
  if (options.force !== true && (await isIntact(entry))) return used(entry)
  await mkdir(parent, { recursive: true })
  await using _lock = await lock(join(parent, `.${key}.lock`))
  // Whoever held the lock may just have made it.
  if (options.force !== true && (await isIntact(entry))) return used(entry)
  const existing = await readdir(parent)
  if (options.force !== true && existing.includes(key)) {
    options.onWarning?.(`cached ${kind} ${key} was changed since it was made; making it again`)
  }
  const temporary = `.${key}.new`
  // Under the lock nobody else works on this key, so what is there was left by a run that died.
  await rm(join(parent, temporary), { recursive: true, force: true })
  await mkdir(join(parent, temporary))
  await make(join(parent, temporary))
  await writeFile(join(parent, temporary, LISTING), JSON.stringify(await listing(join(parent, temporary)), null, 1))
  await rm(entry, { recursive: true, force: true })
  await rename(join(parent, temporary), entry)
  if (options.keep !== undefined) await prune(parent, options.keep)
  return entry
}

/** Marks the entry as used now. */
async function used(entry: string): Promise<string> {
  const now = new Date()
  await utimes(entry, now, now)
  return entry
}

/** Removes all but the entries used last. A machine that runs from a removed one has its files open and keeps them. */
async function prune(parent: string, keep: number): Promise<void> {
  const names = (await readdir(parent)).filter((name) => !name.startsWith('.'))
  const entries = await Promise.all(
    names.map(async (name) => ({ name, usedMs: (await stat(join(parent, name))).mtimeMs })),
  )
  for (const { name } of entries.toSorted((a, b) => b.usedMs - a.usedMs).slice(keep)) {
    await rm(join(parent, name), { recursive: true, force: true })
  }
}

/** True when the directory has exactly the files it was made with, byte for byte. */
async function isIntact(directory: string): Promise<boolean> {
  try {
    const recorded: unknown = JSON.parse(await readFile(join(directory, LISTING), 'utf8'))
    return JSON.stringify(recorded) === JSON.stringify(await listing(directory))
  } catch {
    return false
  }
}

async function listing(directory: string): Promise<Record<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  const result: Record<string, string> = {}
  for (const file of files.sort()) {
    const name = file.slice(directory.length + 1)
    if (name !== LISTING) result[name] = await fileSha256(file)
  }
  return result
}

/** Lower-case hex. */
export async function fileSha256(file: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}

/** A lock that the kernel releases when this process ends, however it ends: Node has no flock of its own. */
async function lock(file: string): Promise<AsyncDisposable> {
  // `cat` holds the lock for as long as our end of its standard input is open.
  const holder = spawn('flock', [file, 'sh', '-c', 'echo held; exec cat'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise<void>((resolve) => holder.once('close', () => resolve()))
  await new Promise<void>((resolve, reject) => {
    const fail = (cause?: unknown) =>
      reject(new UnavailableError('ERR_CACHE_LOCK', `The cache could not be locked (${file})`, { cause }))
    holder.once('error', fail)
    holder.once('exit', () => fail())
    holder.stdout.once('data', resolve)
  })
  return {
    [Symbol.asyncDispose]: async () => {
      holder.stdin.end()
      await ended
    },
  }
}
