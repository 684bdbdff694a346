/** Runs the real `caisson` command and the real servers, and makes sure that none of them survives. */
import { type ChildProcess, spawn } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { CaissonError } from '#protocol/errors'

const CAISSON = new URL('../../node_modules/.bin/caisson', import.meta.url).pathname

export interface Finished {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** All children of one run; disposing ends those that still live, newest first. */
export class Children implements AsyncDisposable {
  readonly #living: ChildProcess[] = []

  /** Runs `caisson` to its end. Throws when it does not exit with `expect`. */
  async caisson(args: readonly string[], expect = 0): Promise<string> {
    const finished = await this.finishCaisson(args)
    if (finished.code !== expect) {
      throw new CaissonError(
        'ERR_QUICKSTART_COMMAND',
        `caisson ${args.slice(0, 2).join(' ')} ended with ${finished.code}`,
        {
          hint: finished.stderr.trim() || finished.stdout.trim(),
        },
      )
    }
    return finished.stdout
  }

  finishCaisson(args: readonly string[]): Promise<Finished> {
    return this.finish(CAISSON, args)
  }

  async caissonJson<T>(args: readonly string[]): Promise<T> {
    return JSON.parse(await this.caisson([...args, '--json'])) as T
  }

  /** Starts a long-living `caisson`. */
  startCaisson(args: readonly string[], log: string): Started {
    return this.start(CAISSON, args, log)
  }

  /** Starts a long-living program; its output goes to `log`, line by line also to `Started.lines`. */
  start(program: string, args: readonly string[], log: string): Started {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#living.push(child)
    return new Started(child, program, log)
  }

  finish(program: string, args: readonly string[]): Promise<Finished> {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#living.push(child)
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code) =>
        resolve({
          code: code ?? 128,
          stdout: Buffer.concat(stdout).toString(),
          stderr: Buffer.concat(stderr).toString(),
        }),
      )
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#living.reverse()) await end(child)
  }
}

/** A started program and the lines that it prints. */
export class Started {
  readonly child: ChildProcess
  readonly exited: Promise<number>
  readonly #name: string
  readonly #log: string
  readonly #seen: string[] = []
  #wake = Promise.withResolvers<void>()

  constructor(child: ChildProcess, name: string, log: string) {
    this.child = child
    this.#name = name
    this.#log = log
    const file = createWriteStream(log)
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue
      stream.pipe(file, { end: false })
      createInterface({ input: stream }).on('line', (line) => {
        this.#seen.push(line)
        this.#wake.resolve()
      })
    }
    this.exited = new Promise((resolve) => {
      child.once('close', (code) => {
        file.end()
        resolve(code ?? 128)
        this.#wake.resolve()
      })
      child.once('error', (error) => {
        this.#seen.push(String(error))
        this.#wake.resolve()
      })
    })
  }

  /** The first printed value for which `find` returns one; throws when the program ends before. */
  async waitFor<T>(find: (line: string) => T | undefined): Promise<T> {
    for (let next = 0; ; ) {
      for (; next < this.#seen.length; next++) {
        const found = find(this.#seen[next] ?? '')
        if (found !== undefined) return found
      }
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        throw new CaissonError('ERR_QUICKSTART_COMMAND', `${this.#name} ended before it was ready`, {
          hint: `${this.#seen.slice(-8).join('\n')}\nWhole output: ${this.#log}`,
        })
      }
      await this.#wake.promise
      this.#wake = Promise.withResolvers()
    }
  }
}

/** A JSON object printed on a line of its own, or undefined. */
export function jsonLine(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    return JSON.parse(line) as Record<string, unknown>
  } catch {
    return undefined
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
  await exited
  clearTimeout(timer)
}
