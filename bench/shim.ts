/** `start` of the shim beside that of runc's, as containerd runs them: from spawn to the end of their output. */
import { execFile, execFileSync } from 'node:child_process'
import { closeSync, constants, copyFileSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { findProcesses, isSameProcess, type ProcessIdentity } from '#host-shim/pod/process-identity'
import { CAISSON_SHIM } from '#native/host/index'
import { daemon, SANDBOX } from '#test/component/host-shim-node/fixtures/shim'
import { memoryOf } from './process-memory.ts'
import { median } from './statistics.ts'

export interface ShimFigures {
  readonly rounds: number
  /** Medians; `true` is a program that does nothing, started the same way. Milliseconds. */
  readonly caissonMs: number
  readonly runcMs: number
  readonly trueMs: number
  readonly ratio: number
  /** The process that stays with a pod, and runc's. MiB. */
  readonly relayPssMib: number
  readonly runcPssMib: number
}

export async function benchShim(rounds: number, say: (line: string) => void): Promise<ShimFigures> {
  const root = mkdtempSync(join(tmpdir(), 'bs-'))
  // It never looks for what containerd has forgotten.
  await using _daemon = await daemon(root, 3_600_000)
  mkdirSync(join(root, 'etc/caisson'), { recursive: true })
  mkdirSync(join(root, 'bin'))
  const shim = join(root, 'bin/containerd-shim-caisson-v2')
  copyFileSync(CAISSON_SHIM, shim)
  const starter = join(root, 'bin/starter')
  execFileSync('gcc', ['-O2', '-Wall', '-Werror', '-o', starter, fileURLToPath(new URL('starter.c', import.meta.url))])
  writeFileSync(join(root, 'etc/caisson/shim.conf'), `socket ${join(root, 'n/node.sock')}\n`)
  const times = { caisson: [] as number[], runc: [] as number[], nothing: [] as number[] }
  const memory = { relay: [] as number[], runc: [] as number[] }
  for (let round = 0; round < rounds; round++) {
    say(`shim start, round ${round + 1} of ${rounds}`)
    for (const [name, program] of [
      ['caisson', shim],
      ['runc', '/usr/bin/containerd-shim-runc-v2'],
    ] as const) {
      const id = `${name}-bench-${process.pid}-${round}`
      const bundle = join(root, 'bundles', id)
      mkdirSync(bundle, { recursive: true })
      writeFileSync(join(bundle, 'config.json'), JSON.stringify(SANDBOX))
      // containerd makes it and holds it open; runc's shim ends without.
      execFileSync('mkfifo', [join(bundle, 'log')])
      const log = openSync(join(bundle, 'log'), constants.O_RDWR | constants.O_NONBLOCK)
      const words = ['-namespace', 'bench', '-address', join(root, 'c.sock'), '-publish-binary', 'true', '-id', id]
      times[name].push(await run(starter, [program, ...words, 'start'], bundle))
      const left = await leftBehind(id)
      memory[name === 'runc' ? 'runc' : 'relay'].push(memoryOf(`\0${id}\0`)[0]?.pssMib ?? Number.NaN)
      await end(left)
      closeSync(log)
    }
    times.nothing.push(await run(starter, ['/bin/true'], root))
  }
  rmSync(root, { recursive: true, force: true })
  const [caissonMs, runcMs] = [median(times.caisson), median(times.runc)]
  return {
    rounds,
    caissonMs,
    runcMs,
    trueMs: median(times.nothing),
    ratio: caissonMs / runcMs,
    relayPssMib: median(memory.relay),
    runcPssMib: median(memory.runc),
  }
}

export function printShim(figures: ShimFigures): void {
  const { caissonMs, runcMs, trueMs, ratio, relayPssMib, runcPssMib, rounds } = figures
  console.log(
    `shim start (median of ${rounds}): ${caissonMs.toFixed(1)} ms; runc’s ${runcMs.toFixed(1)} ms; true ${trueMs.toFixed(1)} ms`,
  )
  console.log(`  ratio ${ratio.toFixed(2)} (target at most 0.5)`)
  console.log(
    `process that stays with a pod: ${relayPssMib.toFixed(2)} MiB PSS; runc’s shim ${runcPssMib.toFixed(2)} MiB`,
  )
}

/** Milliseconds from the start to the end of output, which containerd waits for; started as containerd does, not as Node. */
async function run(starter: string, words: readonly string[], cwd: string): Promise<number> {
  // A publisher of events that is never used, but must be named.
  const env = { ...process.env, TTRPC_ADDRESS: '/run/nobody.ttrpc', GOMAXPROCS: '2' }
  const { stdout } = await promisify(execFile)(starter, [...words], { cwd, env })
  return Number(stdout) / 1e6
}

/** A process has no command line in the moment of its exec. */
async function leftBehind(id: string): Promise<ProcessIdentity> {
  for (;;) {
    const [left] = await findProcesses('', (line) => line.includes(id) && !line.includes('start'))
    if (left !== undefined) return left
  }
}

async function end(process_: ProcessIdentity): Promise<void> {
  process.kill(process_.pid, 'SIGKILL')
  while (await isSameProcess(process_)) await new Promise((resolve) => setTimeout(resolve, 5))
}
