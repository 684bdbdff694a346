/** Files that the user names on the command line. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
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

/** Replaces a file at once: a reader sees the old bytes or the new ones, and a crash leaves the old. */
export function writeUserFile(path: string, bytes: Uint8Array | string, mode = 0o644): void {
  const temporary = `${path}.${process.pid}.new`
  try {
    writeFileSync(temporary, bytes, { mode })
    renameSync(temporary, path)
  } catch (cause) {
    throw new UsageError('ERR_FILE_UNWRITABLE', `${JSON.stringify(path)} cannot be written`, {
      hint: 'Check that the folder exists and may be written to.',
      cause,
    })
  }
}
