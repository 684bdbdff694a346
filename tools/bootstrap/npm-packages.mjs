/** npm packages, exactly as the lock file says; installed again only when the lock file changed. */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { PROJECT_ROOT } from './paths.mjs'
import { BootstrapError, say } from './say.mjs'

const STAMP = `${PROJECT_ROOT}/node_modules/.caisson-lock`

export function installNpmPackages() {
  const lock = createHash('sha256')
    .update(readFileSync(`${PROJECT_ROOT}/package-lock.json`))
    .digest('hex')
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === lock) return
  say('installing npm packages from the lock file')
  // Not `npm ci`: it refuses a lock file without the binaries of other platforms, which not every registry has. The
  // versions and hashes of the lock file bind all the same, and --no-save leaves it untouched. No package's own scripts
  // run: everything needed is in the packages themselves.
  const result = spawnSync(
    'npm',
    ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'],
    {
      cwd: PROJECT_ROOT,
      stdio: ['ignore', 2, 2],
    },
  )
  if (result.status !== 0) {
    throw new BootstrapError('npm install failed', 'Read its output above; the network or the registry may be down.')
  }
  writeFileSync(STAMP, lock)
}
