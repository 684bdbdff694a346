/** Where expensive artefacts live between runs. Everything in it can be deleted at any time and is made again. */
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'

/** `$XDG_CACHE_HOME/caisson`, else `~/.cache/caisson` (XDG base directory specification: relative values are ignored). */
export function cacheDirectory(environment: NodeJS.ProcessEnv = process.env): string {
  const base = environment.XDG_CACHE_HOME
  return join(base !== undefined && isAbsolute(base) ? base : join(homedir(), '.cache'), 'caisson')
}
