/**
 * One request on undici's dispatcher. Its own `request` puts a stream between the parser and the reader, with promises and
 * a copy for each chunk; a pull reads thousands of chunks a second.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { BodySink } from '../http-transport.ts'
import type { Dispatcher } from './undici-agent.cjs'

export interface ResponseHead {
  readonly status: number
  readonly headers: IncomingHttpHeaders
}

/** What may wait for a reader before the connection is held up. */
const KEPT_BYTES = 128 * 1024

interface Settled {
  resolve(): void
  reject(error: unknown): void
}

/** Errors are undici's, Node's or the signal's reason, as they come. */
export class Exchange implements Dispatcher.DispatchHandler {
  readonly head: Promise<ResponseHead>
  readonly #begin: { resolve(head: ResponseHead): void; reject(error: unknown): void }
  readonly #signal: AbortSignal | undefined
  readonly #queue: Uint8Array[] = []
  #queuedBytes = 0
  #controller: Dispatcher.DispatchController | undefined
  #abandoned: Error | undefined
  #sink: ((chunk: Uint8Array) => void) | undefined
  /** Undefined while more may come. */
  #end: { readonly error?: unknown } | undefined
  #waiting: Settled | undefined

  constructor(signal: AbortSignal | undefined) {
    const { promise, resolve, reject } = Promise.withResolvers<ResponseHead>()
    this.head = promise
    this.#begin = { resolve, reject }
    this.#signal = signal
    signal?.addEventListener('abort', this.#aborted, { once: true })
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#abandoned !== undefined) controller.abort(this.#abandoned)
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    // 1xx says something about an answer that is still to come.
    if (status >= 200) this.#begin.resolve({ status, headers })
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    if (this.#sink !== undefined) {
      this.#sink(chunk)
      return
    }
    this.#queue.push(chunk)
    this.#queuedBytes += chunk.byteLength
    if (this.#queuedBytes >= KEPT_BYTES) controller.pause()
    this.#wake()
  }

  onResponseEnd(): void {
    this.#finish({})
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.#finish({ error })
  }

  /** The next chunk; undefined at the end. One call at a time, and not together with `pour`. */
  async next(): Promise<Uint8Array | undefined> {
    for (;;) {
      const chunk = this.#take()
      if (chunk !== undefined) return chunk
      if (this.#end !== undefined) return this.#ended(this.#end)
      await this.#more()
    }
  }

  /** Every chunk that is still to come, to its end; over only when the sink is done with all that it was given. */
  async pour(sink: BodySink): Promise<void> {
    try {
      for (;;) {
        for (let chunk = this.#take(); chunk !== undefined; chunk = this.#take()) await sink(chunk)
        if (this.#end !== undefined) return this.#ended(this.#end)
        await this.#pass(sink)
      }
    } catch (error) {
      this.abandon(error instanceof Error ? error : new Error('the reader failed', { cause: error }))
      throw error
    }
  }

  /** Nobody reads on: closing the connection is cheaper than reading the rest. */
  abandon(error: Error): void {
    if (this.#end !== undefined) return
    this.#abandoned = error
    this.#controller?.abort(error)
    this.#queue.length = 0
    this.#finish({ error })
  }

  /** Chunks as they come, without a promise for each, until the sink wants to be waited for or nothing more comes. */
  async #pass(sink: BodySink): Promise<void> {
    let busy: Promise<void> | undefined
    this.#sink = (chunk) => {
      busy = begun(sink, chunk)
      if (busy === undefined) return
      // What comes all the same waits its turn.
      this.#sink = undefined
      this.#controller?.pause()
      this.#wake()
    }
    await this.#more()
    this.#sink = undefined
    await busy
    this.#controller?.resume()
  }

  #take(): Uint8Array | undefined {
    const chunk = this.#queue.shift()
    if (chunk === undefined) return undefined
    this.#queuedBytes -= chunk.byteLength
    if (this.#queuedBytes < KEPT_BYTES) this.#controller?.resume()
    return chunk
  }

  #ended({ error }: { readonly error?: unknown }): undefined {
    if (error !== undefined) throw error
  }

  #more(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
  }

  #wake(): void {
    this.#waiting?.resolve()
    this.#waiting = undefined
  }

  #finish(end: { readonly error?: unknown }): void {
    if (this.#end !== undefined) return
    this.#end = end
    this.#signal?.removeEventListener('abort', this.#aborted)
    // Settled already when the answer has begun.
    this.#begin.reject(end.error)
    this.#wake()
  }

  readonly #aborted = (): void => {
    const reason: unknown = this.#signal?.reason
    this.abandon(reason instanceof Error ? reason : new Error('aborted', { cause: reason }))
  }
}

/** What it throws at once becomes what it answers. */
function begun(sink: BodySink, chunk: Uint8Array): Promise<void> | undefined {
  try {
    return sink(chunk)
  } catch (error) {
    return Promise.reject(error)
  }
}
