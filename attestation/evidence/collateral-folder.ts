/** The files of a folder, or the one file, that the user names as collateral. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { MalformedError, UsageError } from '#protocol/errors'
import { COLLATERAL_LIMITS, type Collateral, type CollateralFile, readCollateral } from './collateral.ts'

/** Links to folders are not followed, so this only bounds what a person would build. */
const MAX_DEPTH = 32

/**
 * All files of the folder and of those in it, in order of their names; or the one file that is named. Files too large to be
 * collateral are reported.
 *
 * Throws `UsageError` ERR_FILE_UNREADABLE, `MalformedError` ERR_COLLATERAL.
 */
export function loadCollateral(folder: string): Collateral {
  try {
    const ignored: { name: string; why: string }[] = []
    const files: CollateralFile[] = []
    const single = statSync(folder).isFile()
    for (const path of single ? [folder] : filesOf(folder, 0)) {
      const name = single ? basename(path) : relative(folder, path)
      const { size } = statSync(path)
      if (size <= COLLATERAL_LIMITS.fileBytes) files.push({ name, bytes: new Uint8Array(readFileSync(path)) })
      else ignored.push({ name, why: `${size} bytes are more than collateral has` })
      if (files.length > COLLATERAL_LIMITS.files) {
        throw new MalformedError('ERR_COLLATERAL', `collateral: more than ${COLLATERAL_LIMITS.files} files`)
      }
    }
    const collateral = readCollateral(files)
    return { ...collateral, ignored: [...collateral.ignored, ...ignored] }
  } catch (cause) {
    if (cause instanceof MalformedError) throw cause
    throw new UsageError('ERR_FILE_UNREADABLE', `the collateral folder ${JSON.stringify(folder)} cannot be read`, {
      hint: 'Name a folder of certificates, revocation lists and TCB information that this user may read.',
      cause,
    })
  }
}

function filesOf(folder: string, depth: number): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name)
      if (entry.isDirectory()) return depth < MAX_DEPTH ? filesOf(path, depth + 1) : []
      // A link to nothing, or to a folder, is no file.
      return statSync(path, { throwIfNoEntry: false })?.isFile() === true ? [path] : []
    })
}
