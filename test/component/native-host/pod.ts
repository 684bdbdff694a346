/** Starts `caisson-pod`, or what `CAISSON_TEST_POD` names (the one under sanitizers, say), and follows its events. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { EventEmitter, on, once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { ExecutionContext } from 'ava'
import { CAISSON_POD, type PodEvent, parsePodEvent } from '#native/host/index'
import { buildNative } from '../../../native/build.mjs'

await buildNative({ only: ['caisson-pod'] })

/** What a test's context and a teardown hook outside of tests have in common. */
export type Teardown = Pick<ExecutionContext, 'teardown'>

const PATIENCE_MS = 60_000

export class TestPod {
  readonly dir: string
  readonly vsockPath: string
  readonly process: ChildProcessByStdio<Writable, Readable, Readable>
  readonly events: PodEvent[] = []
  readonly exit: Promise<{ code: number | null; signal: string | null }>
  stderr = ''
  readonly #emitter = new EventEmitter()

  constructor(scope: Teardown, command: (dir: string) => readonly string[], options: readonly string[] = []) {
    this.dir = mkdtempSync(join(tmpdir(), 'caisson-pod-'))
    this.vsockPath = join(this.dir, 'vsock.sock')
    const args = ['--state-dir', this.dir, ...options, '--', ...command(this.dir)]
    this.process = spawn(process.env.CAISSON_TEST_POD ?? CAISSON_POD, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.process.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    createInterface({ input: this.process.stdout }).on('line', (line) => {
      this.events.push(parsePodEvent(line))
      this.#emitter.emit('event')
    })
    this.exit = once(this.process, 'close').then(([code, signal]) => ({ code, signal }))
    scope.teardown(async () => {
      this.process.stdin.end()
      await this.exit
      rmSync(this.dir, { recursive: true, force: true })
    })
  }

  /** The nth (from 1) event of this name, past or future. Rejects when the process ends without it. */
  async event<Name extends PodEvent['event']>(name: Name, nth = 1): Promise<Extract<PodEvent, { event: Name }>> {
    const find = () => this.events.filter((event) => event.event === name)[nth - 1]
    const signal = AbortSignal.timeout(PATIENCE_MS)
    const ended = new AbortController()
    void this.exit.then(() => ended.abort())
    const news = on(this.#emitter, 'event', { signal: AbortSignal.any([signal, ended.signal]) })
    try {
      while (find() === undefined) await news.next()
    } catch (cause) {
      if (find() === undefined) throw new Error(`no event ${name} (${nth}):\n${this.stderr}${this.log()}`, { cause })
    } finally {
      await news.return?.()
    }
    return find() as Extract<PodEvent, { event: Name }>
  }

  /** The VMM's output. */
  log(): string {
    const file = join(this.dir, 'vmm.log')
    return existsSync(file) ? readFileSync(file, 'utf8') : ''
  }
}

/** For what has no event to wait for, such as the end of a process that is not our child. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadlineMs = performance.now() + PATIENCE_MS
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`it did not happen: ${what}`)
    await delay(10)
  }
}

/** A zombie counts as ended: reaping it is somebody else's business. */
export function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** Processor time used so far, in ticks of 10 ms. */
export function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return Number(fields[11]) + Number(fields[12])
}

/** A field of /proc/PID/status in KiB, `RssAnon` for instance. */
export function memoryKib(pid: number, field: string): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1])
}
