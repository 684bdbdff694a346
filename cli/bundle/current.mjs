/**
 * The command line as a few files, so that a start reads four and not a hundred and forty. What lies in `CLI_BUNDLE` was made
 * by `build.mjs`; it is used as long as every source is as it was then, and the sources themselves otherwise.
 */
import { readFileSync, realpathSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Folder of package.json. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const CLI_BUNDLE = `${ROOT}node_modules/.cache/caisson-cli/`
/** `{ entry, inputs: { path: [bytes, milliseconds] } }`, written last. */
export const CLI_BUNDLE_RECORD = `${CLI_BUNDLE}current.json`

/** What changes with a file's content: length and time. @param path below the root; throws when there is no such file */
export function stampOf(path) {
  const { size, mtimeMs } = statSync(`${ROOT}${path}`)
  return [size, mtimeMs]
}

/** Path of the bundle's entry, or undefined when there is none that the sources would give again. */
export function currentBundle() {
  try {
    const { entry, inputs } = JSON.parse(readFileSync(CLI_BUNDLE_RECORD, 'utf8'))
    // Packages that a copy of the project shares with it hold the bundle of the other one, which finds that one's files.
    if (!realpathSync(CLI_BUNDLE).startsWith(realpathSync(ROOT))) return undefined
    for (const path in inputs) if (!isSame(stampOf(path), inputs[path])) return undefined
    statSync(`${CLI_BUNDLE}${entry}`)
    return `${CLI_BUNDLE}${entry}`
  } catch {
    return undefined
  }
}

/** Archives, those of container images too, may keep whole seconds only. */
function isSame([size, mtimeMs], [sizeThen, mtimeMsThen]) {
  return size === sizeThen && (mtimeMs === mtimeMsThen || mtimeMs === Math.floor(mtimeMsThen / 1000) * 1000)
}
