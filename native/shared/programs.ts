/** Where `native/build.mjs` puts the programs that pulls need outside of a guest. */
import { fileURLToPath } from 'node:url'

/** Makes indexes from catalogues; confines itself. */
export const CAISSON_INDEX: string = fileURLToPath(new URL('../build/caisson-index', import.meta.url))
