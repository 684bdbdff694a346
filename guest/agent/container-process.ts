/** One process of a container and its output: pumps what it writes into the ring, takes input from one stream at a time. */
import type { ByteStream } from '#protocol/byte-stream'
import type { ProcessExit, RunningProcess } from '../platform/platform.ts'
import { AgentError } from './agent-error.ts'
import { copyTo } from './copy.ts'
import { OUTPUT_RING_BYTES } from './limits.ts'
import { OutputRing, type OutputSource } from './output-ring.ts'

export class ContainerProcess {
  readonly #process: RunningProcess
  readonly #stdin: boolean
  readonly #ring: OutputRing
  #inputTaken = false

  /** @param options stdin: whether input of the host may reach it */
  constructor(process: RunningProcess, options: { readonly stdin: boolean }) {
    this.#process = process
    this.#stdin = options.stdin
    const { stdout, stderr, terminal } = process.io
    const outputs: [OutputSource, ByteStream][] = []
    const first = terminal ?? stdout
    if (first !== undefined) outputs.push(['stdout', first])
    if (stderr !== undefined) outputs.push(['stderr', stderr])
    this.#ring = new OutputRing(
      OUTPUT_RING_BYTES,
      outputs.map(([source]) => source),
    )
    for (const [source, stream] of outputs) void this.#drain(source, stream)
  }

  get pid(): number {
    return this.#process.pid
  }

  get exited(): Promise<ProcessExit> {
    return this.#process.exited
  }

  get hasTerminal(): boolean {
    return this.#process.io.terminal !== undefined
  }

  signal(signal: number): boolean {
    return this.#process.signal(signal)
  }

  resize(columns: number, rows: number): void {
    this.#process.io.resize(columns, rows)
  }

  /** Sends output to `stream` until it ends, and half-closes it. */
  async sendOutput(stream: ByteStream, sources: readonly OutputSource[], follow: boolean): Promise<void> {
    const reader = this.#ring.reader(sources, follow)
    // A peer that is gone must not hold the process back. One that merely has nothing to say may have half-closed.
    drop(stream).catch(() => reader.close())
    try {
      await copyTo(reader, stream)
    } finally {
      reader.close()
    }
  }

  /** Feeds the process's input from `stream`; an orderly end of the stream ends the input. */
  async takeInput(stream: ByteStream): Promise<void> {
    const input = this.#process.io.stdin
    if (!this.#stdin || input === undefined) throw noSuchStream('stdin')
    const release = this.#holdInput()
    try {
      await copyTo(stream, input)
    } finally {
      release()
    }
  }

  /** Both directions of a terminal. */
  async joinTerminal(stream: ByteStream): Promise<void> {
    const { terminal } = this.#process.io
    if (terminal === undefined) throw noSuchStream('terminal')
    // Refused at once: a rejection that waits for the output's end would be nobody's, and end the agent.
    const release = this.#holdInput()
    const reader = this.#ring.reader(['stdout'], true)
    const input = async () => {
      try {
        for (let bytes = await stream.read(); bytes !== null; bytes = await stream.read()) {
          if (this.#stdin) await terminal.write(bytes)
        }
      } catch {
        // The peer or the terminal is gone.
        reader.close()
      } finally {
        release()
      }
    }
    const taken = input()
    try {
      await copyTo(reader, stream)
    } finally {
      reader.close()
      stream.destroy()
      await taken
    }
  }

  /** Lets go of the descriptors; output that is kept stays readable. */
  close(): void {
    const { stdin, stdout, stderr, terminal } = this.#process.io
    for (const stream of [stdin, stdout, stderr, terminal]) stream?.destroy()
  }

  async #drain(source: OutputSource, stream: ByteStream): Promise<void> {
    try {
      for (let bytes = await stream.read(); bytes !== null; bytes = await stream.read()) {
        await this.#ring.push(source, bytes)
      }
    } catch {
      // A broken pipe is the end of the output like any other.
    }
    this.#ring.end(source)
    if (stream !== this.#process.io.terminal) stream.destroy()
  }

  /** @returns what lets go of it. @throws AgentError ERR_STREAM_TAKEN */
  #holdInput(): () => void {
    if (this.#inputTaken) throw new AgentError('failedPrecondition', 'ERR_STREAM_TAKEN', 'another stream is the input')
    this.#inputTaken = true
    return () => {
      this.#inputTaken = false
    }
  }
}

export function noSuchStream(what: string): AgentError {
  return new AgentError('failedPrecondition', 'ERR_STREAM_NONE', `the process has no ${what}`)
}

/** Reads and forgets what the peer says; rejects when it is gone without a goodbye. */
async function drop(stream: ByteStream): Promise<void> {
  while ((await stream.read()) !== null);
}
