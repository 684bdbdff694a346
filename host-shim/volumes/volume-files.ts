/**
 * Reads what the kubelet wrote for a volume: files below the directory that "..data" leads to, which the kubelet replaces
 * as a whole. Links are not followed: what lies elsewhere on the host is never a part of a volume.
 */
import { constants } from 'node:fs'
import { open, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { UnavailableError, UsageError } from '#protocol/errors'
import { checkVolumeFiles, MAX_VOLUME_BYTES, MAX_VOLUME_FILES, type VolumeFile } from '#protocol/volume-content'

const DATA = '..data'
const ATTEMPTS = 10

/** The version that is there, sorted by name. @throws UsageError ERR_VOLUME_TOO_LARGE; UnavailableError ERR_VOLUME_READ */
export async function readVolumeFiles(directory: string): Promise<readonly VolumeFile[]> {
  for (let attempt = 1; ; attempt++) {
    const version = await versionOf(directory)
    // A volume of an optional object that does not exist is empty.
    if (version === undefined) return []
    try {
      const files = await filesBelow(join(directory, version))
      checkVolumeFiles(files)
      return files
    } catch (cause) {
      // The kubelet may have replaced it meanwhile, and then removes what was read.
      if (isMissing(cause) && attempt < ATTEMPTS) continue
      if (!isMissing(cause)) throw cause
      throw new UnavailableError('ERR_VOLUME_READ', `${directory} changes faster than it can be read`, { cause })
    }
  }
}

/** Name of the directory with the content; a new one for every change. */
export async function versionOf(directory: string): Promise<string | undefined> {
  const target = await readlink(join(directory, DATA)).catch(() => undefined)
  return target === undefined || target.includes('/') ? undefined : target
}

async function filesBelow(root: string): Promise<readonly VolumeFile[]> {
  const files: VolumeFile[] = []
  let total = 0
  const pending = ['']
  for (let folder = pending.pop(); folder !== undefined; folder = pending.pop()) {
    const entries = await readdir(join(root, folder), { withFileTypes: true })
    for (const entry of entries) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`
      if (entry.isDirectory()) pending.push(path)
      if (!entry.isFile()) continue
      const content = await readWhole(join(root, path), MAX_VOLUME_BYTES - total)
      total += content.byteLength
      files.push({ path, content })
      if (files.length > MAX_VOLUME_FILES) throw tooLarge(root)
    }
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1))
}

async function readWhole(path: string, maxBytes: number): Promise<Uint8Array> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  const { size } = await file.stat()
  if (size > maxBytes) throw tooLarge(path)
  const content = new Uint8Array(size)
  const { bytesRead } = await file.read(content, 0, size, 0)
  return content.subarray(0, bytesRead)
}

function tooLarge(path: string): UsageError {
  const bounds = `at most ${MAX_VOLUME_FILES} files of ${MAX_VOLUME_BYTES} bytes together enter a guest`
  return new UsageError('ERR_VOLUME_TOO_LARGE', `${path} has too much: ${bounds}`, {
    hint: 'Split the volume, or put the files into the image.',
  })
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}
