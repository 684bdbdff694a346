/**
 * Where the launcher starts: turns the compile cache on before anything is read, and starts the bundle or, when a source
 * has changed since, `main.ts`. That one, started directly, has its types stripped at every start, by a compiler that
 * takes 17 MiB and 0.16 s.
 */
import { enableCompileCache } from 'node:module'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { currentBundle } from './bundle/current.mjs'

const [, , first, second] = process.argv
const pulls = first === 'image' && second === 'pull'
// Before anything grows: what a pull throws away is short-lived, and waits for nothing in a larger nursery.
if (pulls) setFlagsFromString('--semi-space-growth-factor=1')

// As `tools/cache/location.ts`. What was compiled under other flags is refused, so each has a folder.
const base = process.env.XDG_CACHE_HOME
const cache = base !== undefined && isAbsolute(base) ? base : join(homedir(), '.cache')
enableCompileCache(join(cache, 'caisson/compiled', pulls ? 'pull' : 'any'))
await import(currentBundle() ?? './main.ts')
