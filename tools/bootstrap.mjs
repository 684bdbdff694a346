/**
 * The one entry point of a fresh clone: makes this machine ready, then runs a lane. Plain JavaScript without
 * dependencies, because nothing is installed yet when it runs; any Node from 18 on will do.
 *
 * Every step looks at what is there before it does anything, writes under another name and renames, and can be
 * interrupted and run again.
 */
import { installDebianPackages } from './bootstrap/debian-packages.mjs'
import { LANES, runLane } from './bootstrap/lanes.mjs'
import { writeLauncher } from './bootstrap/launcher.mjs'
import { installNpmPackages } from './bootstrap/npm-packages.mjs'
import { BootstrapError, say } from './bootstrap/say.mjs'

const USAGE = `usage: node tools/bootstrap.mjs [lane] [--dry-run] [-- arguments of the lane]

Prepares this machine (Debian packages, npm packages, native code, the caisson launcher, the guest image) and runs a
lane. Without a lane it only prepares. --dry-run says which Debian packages are missing and why, and changes nothing.

lanes:
${Object.entries(LANES)
  .map(([name, lane]) => `  ${name.padEnd(16)} ${lane.about}`)
  .join('\n')}

examples:
  npm run quickstart
  npm test
  node tools/bootstrap.mjs --dry-run
  node tools/bootstrap.mjs test-unit -- test/unit/policies/engine.test.ts
`

async function main(args) {
  const separator = args.indexOf('--')
  const own = separator < 0 ? args : args.slice(0, separator)
  const rest = separator < 0 ? [] : args.slice(separator + 1)
  if (own.includes('--help') || own.includes('-h')) return process.stdout.write(USAGE)
  const dryRun = own.includes('--dry-run')
  const words = own.filter((word) => word !== '--dry-run')
  const name = words[0] ?? 'prepare'
  const lane = LANES[name]
  if (lane === undefined || words.length > 1 || words[0]?.startsWith('-')) {
    throw new BootstrapError(`unknown lane ${JSON.stringify(words.join(' '))}`, USAGE, 2)
  }
  if (Number(process.versions.node.split('.')[0]) < 18) {
    throw new BootstrapError(
      `Node ${process.versions.node} is too old`,
      'Install Node 18 or later; the pinned one is fetched by npm.',
    )
  }
  installDebianPackages({ needs: lane.needs, dryRun })
  if (dryRun) return
  installNpmPackages()
  writeLauncher()
  await runLane(name, rest)
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof BootstrapError)) throw error
  say(`error: ${error.message}`)
  if (error.hint) process.stderr.write(`${error.hint}\n`)
  process.exitCode = error.exitCode
}
