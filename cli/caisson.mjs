/**
 * Where the launcher starts: turns the compile cache on before the first TypeScript is read. `main.ts`, started directly,
 * has its types stripped at every start, by a compiler that takes 17 MiB and 0.1 s. As `tools/cache/location.ts`.
 */
import { enableCompileCache } from 'node:module'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'

const base = process.env.XDG_CACHE_HOME
enableCompileCache(join(base !== undefined && isAbsolute(base) ? base : join(homedir(), '.cache'), 'caisson/compiled'))
await import('./main.ts')
