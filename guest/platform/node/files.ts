/** `Files` on Node. */
import { constants } from 'node:fs'
import {
  chmod,
  chown,
  type FileHandle,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  utimes,
} from 'node:fs/promises'
import { readInRoot, SyscallError } from '#native/guest/index'
import { UnavailableError } from '#protocol/errors'
import type { Files } from '../platform.ts'

export const nodeFiles: Files = {
  read: async (path, maxBytes) => {
    await using file = await open(path, constants.O_RDONLY)
    return await readBounded(file, path, maxBytes)
  },

  readIfExists: async (path, maxBytes) => {
    try {
      return await nodeFiles.read(path, maxBytes)
    } catch (error) {
      if (isMissing(error)) return undefined
      throw error
    }
  },

  readEnd: async (path, maxBytes) => {
    try {
      await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW)
      const { size } = await file.stat()
      const length = Math.min(size, maxBytes)
      const { bytesRead, buffer } = await file.read(new Uint8Array(length), 0, length, size - length)
      return buffer.subarray(0, bytesRead)
    } catch (error) {
      if (isMissing(error)) return new Uint8Array()
      throw error
    }
  },

  write: async (path, bytes, mode, owner) => {
    const fresh = `${path}.new`
    {
      await using file = await open(fresh, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o600)
      await file.writeFile(bytes)
    }
    if (owner !== undefined) await chown(fresh, owner.uid, owner.gid)
    await chmod(fresh, mode)
    await rename(fresh, path)
  },

  control: async (path, text) => {
    await using file = await open(path, constants.O_WRONLY)
    await file.write(text)
  },

  mkdir: async (path, mode, owner) => {
    const made = await mkdir(path, { recursive: true, mode })
    if (made === undefined) return
    if (owner !== undefined) await chown(path, owner.uid, owner.gid)
    // The file mode creation mask, 022 from PID 1 on, took bits away: users of a container could not write to a volume.
    await chmod(path, mode)
  },

  own: async (path, mode, { uid, gid }) => {
    await chown(path, uid, gid)
    await chmod(path, mode)
  },

  sync: async (path) => {
    await using directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    await directory.sync()
  },

  link: async (path, target) => {
    const fresh = `${path}.new`
    await rm(fresh, { force: true })
    await symlink(target, fresh)
    await rename(fresh, path)
  },

  copyAttributes: async (from, to) => {
    const { uid, gid, mode, atime, mtime } = await stat(from)
    await chown(to, uid, gid)
    // After the owner: changing that takes set-id bits away.
    await chmod(to, mode & 0o7777)
    await utimes(to, atime, mtime)
  },

  remove: (path) => rm(path, { recursive: true, force: true }),

  list: async (path) => {
    try {
      return await readdir(path)
    } catch (error) {
      if (isMissing(error)) return []
      throw error
    }
  },

  readInRoot: async (root, path, maxBytes) => {
    try {
      return await readInRoot(root, path, maxBytes)
    } catch (error) {
      if (error instanceof SyscallError && error.errno === 'EFBIG') throw tooLarge(path, maxBytes)
      throw error
    }
  },
}

/** Sizes of proc and sysfs files say 0, so the content is read until it ends. */
async function readBounded(file: FileHandle, path: string, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let total = 0
  while (true) {
    const { bytesRead, buffer } = await file.read(new Uint8Array(16_384), 0, 16_384, null)
    if (bytesRead === 0) break
    total += bytesRead
    if (total > maxBytes) throw tooLarge(path, maxBytes)
    chunks.push(buffer.subarray(0, bytesRead))
  }
  const content = new Uint8Array(total)
  let offset = 0
  for (const chunk of chunks) {
    content.set(chunk, offset)
    offset += chunk.byteLength
  }
  return content
}

function tooLarge(path: string, maxBytes: number): UnavailableError {
  return new UnavailableError('ERR_FILE_TOO_LARGE', `${path} has more than ${maxBytes} bytes`)
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')
}
