/** `node_modules/.bin/caisson`: the command line on the pinned Node, whatever `node` is on PATH. */
import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { PINNED_NODE, PROJECT_ROOT } from './paths.mjs'

/**
 * Of the verifier, which lives long and makes garbage all the time: left alone, V8 doubles the room for what is new whenever
 * much of it is alive at once, until it has 100 MiB more than it needs; and its helpers cost more processor time than they
 * save over a heap of 20 MiB. `deploy/image/caisson.sh` says the same.
 */
export const VERIFIER_FLAGS = ['--max-semi-space-size=4', '--single-threaded-gc']

const LAUNCHER = `${PROJECT_ROOT}/node_modules/.bin/caisson`

export function writeLauncher() {
  const text = `#!/bin/sh
# Written by tools/bootstrap.mjs. NODE_EXTRA_CA_CERTS would add roots that nobody chose, and 40 ms per start.
unset NODE_EXTRA_CA_CERTS
# A pull's threads share one heap, else each keeps what was once freed in it.
[ "$1 $2" = 'image pull' ] && export MALLOC_ARENA_MAX=1
flags=
[ "$1 $2" = 'verifier serve' ] && flags='${VERIFIER_FLAGS.join(' ')}'
exec ${quote(PINNED_NODE)} --disable-warning=ExperimentalWarning $flags ${quote(`${PROJECT_ROOT}/cli/caisson.mjs`)} "$@"
`
  if (existsSync(LAUNCHER) && readFileSync(LAUNCHER, 'utf8') === text) return
  writeFileSync(`${LAUNCHER}.new`, text)
  chmodSync(`${LAUNCHER}.new`, 0o755)
  renameSync(`${LAUNCHER}.new`, LAUNCHER)
}

function quote(path) {
  return `'${path.replaceAll("'", "'\\''")}'`
}
