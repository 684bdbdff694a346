/** Files that the user names on the command line. */
import { closeSync, fsyncSync, lstatSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { UsageError } from '#protocol/errors'

/** Throws `UsageError` with the code `ERR_FILE_UNREADABLE`. */
export function readUserFile(path: string, what: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new UsageError('ERR_FILE_UNREADABLE', `${what} ${JSON.stringify(path)} cannot be read`, {
      hint: 'Check the path and the permissions.',
      cause,
    })
  }
}

/**
 * Replaces a file at once: a reader sees the old bytes or the new ones, and a crash or a power cut leaves one of both.
 * Throws `UsageError` with the code `ERR_FILE_UNWRITABLE`.
 */
export function writeUserFile(path: string, bytes: Uint8Array | string, mode = 0o644): void {
  const temporary = `${path}.${process.pid}.new`
  try {
    writeSynced(temporary, bytes, { mode, flag: 'w' })
    renameSync(temporary, path)
    syncFolderOf(path)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw unwritable(path, cause)
  }
}

export interface NewFile {
  readonly path: string
  readonly bytes: string
  readonly mode: number
}

/**
 * Writes files of keys, all or none, and never over what is there: a key that is lost takes with it what it opens. They
 * are on the disk when this returns, so that whatever is locked with them next can be opened after a power cut.
 * Throws `UsageError` with the code `ERR_FILE_EXISTS`, told with `hint`, or `ERR_FILE_UNWRITABLE`.
 */
export function createUserFiles(files: readonly NewFile[], hint: string): void {
  for (const { path } of files) if (isTaken(path)) throw taken(path, hint)
  const made: string[] = []
  for (const { path, bytes, mode } of files) {
    try {
      writeSynced(path, bytes, { mode, flag: 'wx' }, () => made.push(path))
      syncFolderOf(path)
    } catch (cause) {
      for (const each of made) rmSync(each, { force: true })
      const isThere = cause instanceof Error && 'code' in cause && cause.code === 'EEXIST'
      throw isThere ? taken(path, hint) : unwritable(path, cause)
    }
  }
}

/** Also a link that leads nowhere. */
function isTaken(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined
}

function writeSynced(
  path: string,
  bytes: Uint8Array | string,
  { mode, flag }: { readonly mode: number; readonly flag: 'w' | 'wx' },
  onOpen: () => void = () => {},
): void {
  const file = openSync(path, flag, mode)
  try {
    onOpen()
    writeFileSync(file, bytes)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

/** A file's name is in its folder. */
function syncFolderOf(path: string): void {
  const folder = openSync(dirname(path), 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

function taken(path: string, hint: string): UsageError {
  return new UsageError('ERR_FILE_EXISTS', `${JSON.stringify(path)} exists already`, { hint })
}

function unwritable(path: string, cause: unknown): UsageError {
  return new UsageError('ERR_FILE_UNWRITABLE', `${JSON.stringify(path)} cannot be written`, {
    hint: 'Check that the folder exists and may be written to.',
    cause,
  })
}
