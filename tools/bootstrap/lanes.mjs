/** What can be run once the machine is ready: each lane is a list of steps, run in order until one fails. */
import { spawn } from 'node:child_process'
import { PINNED_NODE, PROJECT_ROOT } from './paths.mjs'
import { BootstrapError, say } from './say.mjs'

const BIN = `${PROJECT_ROOT}/node_modules/.bin`
/** The binary itself: its wrapper package wants a package per platform, and not every registry has them all. */
const BIOME = `${PROJECT_ROOT}/node_modules/@biomejs/cli-linux-x64/biome`
const node = (...args) => [PINNED_NODE, '--disable-warning=ExperimentalWarning', ...args]
const ava = (...args) => node(`${BIN}/ava`, ...args)

const NATIVE = { name: 'native code', command: node('native/build.mjs') }
const COMMAND_LINE = { name: 'command line', command: node('cli/bundle/build.mjs') }
const GUEST = { name: 'guest image', command: node('guest/build/main.ts') }
const CHECKS = [
  { name: 'types', command: [`${BIN}/tsc`] },
  { name: 'format and lint', command: [BIOME, 'ci', '--error-on-warnings'] },
  { name: 'promises and exhaustiveness', command: [`${BIN}/oxlint`, '--type-aware'] },
  { name: 'layers', command: node('tools/check-layers.ts') },
  { name: 'error codes', command: node('tools/check-errors.ts') },
  { name: 'promises', command: node('tools/check-promises.ts') },
  { name: 'parsers', command: node('tools/check-parsers.ts') },
]
const UNIT = { name: 'unit tests', command: ava('test/unit/**/*.test.ts'), arguments: true }
const COMPONENT = {
  name: 'component tests',
  command: ava('--concurrency=2', 'test/component/**/*.test.ts'),
  arguments: true,
}
const E2E = { name: 'end-to-end tests', command: ava('--concurrency=1', 'test/e2e/**/*.test.ts'), arguments: true }
const FAULTS = {
  name: 'fault tests',
  command: ava('--concurrency=1', '--timeout=60m', 'test/faults/**/*.test.ts'),
  arguments: true,
}

const ALL = ['build', 'vm', 'tenant', 'test']
/** Component tests run every fuzzer for a moment. */
const TESTS = [...ALL, 'fuzz']

/**
 * `needs` selects Debian packages; a step with `arguments` takes those of the command line in place of its last. A step
 * that `follows` has a channel to us, by which it notices our end and ends, too.
 */
export const LANES = {
  prepare: { about: 'prepare everything, run nothing', needs: TESTS, steps: [NATIVE, COMMAND_LINE, GUEST] },
  quickstart: {
    about: 'from nothing to an attested container, with a summary',
    needs: ['build', 'vm', 'tenant'],
    steps: [
      NATIVE,
      COMMAND_LINE,
      GUEST,
      { name: 'quickstart', command: node('tools/quickstart/main.ts'), appends: true, follows: true },
    ],
  },
  test: {
    about: 'checks, unit, component and end-to-end tests',
    needs: TESTS,
    steps: [NATIVE, ...CHECKS, UNIT, COMMAND_LINE, GUEST, COMPONENT, E2E],
  },
  check: { about: 'types, format, lint, layers, error codes, promises, parsers', needs: [], steps: CHECKS },
  'test-unit': { about: 'unit tests (seconds)', needs: ['build'], steps: [NATIVE, UNIT] },
  'test-component': {
    about: 'tests against real servers and tools',
    needs: TESTS,
    steps: [NATIVE, COMMAND_LINE, GUEST, COMPONENT],
  },
  'test-e2e': { about: 'tests that boot VMs', needs: ALL, steps: [NATIVE, COMMAND_LINE, GUEST, E2E] },
  'test-faults': {
    about: 'every process of a pod killed at every moment, servers away for a while (an hour)',
    needs: ALL,
    steps: [NATIVE, COMMAND_LINE, GUEST, FAULTS],
  },
  'test-fuzz': {
    about: 'ten minutes of every fuzzer (-- --seconds N, -- --only NAME)',
    needs: ['build', 'fuzz'],
    steps: [{ name: 'fuzzers', command: node('tools/fuzz/main.ts'), appends: true }],
  },
  'test-repro': {
    about: 'the guest built twice, in different surroundings, and compared (-- --root-only: minutes less)',
    needs: ['build', 'vm'],
    steps: [NATIVE, { name: 'reproducible guest', command: node('tools/repro/main.ts'), appends: true }],
  },
  bench: {
    about: 'measurements, each beside its peer',
    needs: ALL,
    steps: [NATIVE, COMMAND_LINE, GUEST, { name: 'bench', command: node('bench/main.ts'), appends: true }],
  },
  generate: {
    about: 'regenerate protocol/gen',
    needs: ALL,
    steps: [{ name: 'generate', command: node('protocol/generate.mjs') }],
  },
}

export async function runLane(name, extra) {
  const started = Date.now()
  for (const step of LANES[name].steps) {
    const stepStarted = Date.now()
    const replaced = step.arguments && extra.length > 0 ? [...step.command.slice(0, -1), ...extra] : step.command
    const command = step.appends ? [...replaced, ...extra] : replaced
    const status = await run(command, step)
    if (status !== 0) {
      throw new BootstrapError(`${step.name} failed (exit ${status})`, `The command was: ${command.join(' ')}`, status)
    }
    if (name !== 'quickstart') say(`${step.name}: ok in ${seconds(stepStarted)}`)
  }
  if (name !== 'quickstart') say(`${name}: done in ${seconds(started)}`)
}

function seconds(since) {
  return `${((Date.now() - since) / 1000).toFixed(1)} s`
}

/**
 * Runs to the end with our terminal; an interrupt reaches the child through the process group, so we only wait. Listens
 * to signals only meanwhile: a lane has a dozen steps, and Node warns of a leak from the eleventh listener on.
 */
export function run(command, { follows = false } = {}) {
  const { NODE_EXTRA_CA_CERTS: _extraRoots, ...environment } = process.env
  const ignore = () => {}
  const pass = () => child.kill('SIGTERM')
  // Before the child runs: it may say that it is up before this process gets to its next line. No signal is handled in
  // between, since nothing here waits.
  process.on('SIGINT', ignore).on('SIGTERM', pass)
  const child = spawn(command[0], command.slice(1), {
    cwd: PROJECT_ROOT,
    stdio: follows ? ['inherit', 'inherit', 'inherit', 'ipc'] : 'inherit',
    env: { ...environment, PATH: `${BIN}:${environment.PATH}` },
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 130)))
  }).finally(() => process.off('SIGINT', ignore).off('SIGTERM', pass))
}
