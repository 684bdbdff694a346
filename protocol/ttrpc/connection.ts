/**
 * What both ends of a ttrpc connection do alike: frames out in order, frames in one by one, back-pressure, and one way
 * to end.
 */
import type { ByteStream } from '../byte-stream.ts'
import { encodeFrame, type Frame, FrameDecoder } from './frame.ts'

/** Unsent bytes above which `drained` waits, so a peer that asks without reading answers cannot fill our memory. */
const MAX_QUEUED_BYTES = 1024 * 1024

export class FrameConnection {
  readonly #stream: ByteStream
  readonly #decoder: FrameDecoder
  #tail: Promise<void> = Promise.resolve()
  #queuedBytes = 0
  #closed = false

  constructor(stream: ByteStream, maxMessageBytes: number) {
    this.#stream = stream
    this.#decoder = new FrameDecoder(maxMessageBytes)
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Queues the frame behind those sent before; the order of calls is the order on the wire. Rejects once broken. */
  send(frame: Omit<Frame, 'oversize'>): Promise<void> {
    const bytes = encodeFrame(frame)
    this.#queuedBytes += bytes.byteLength
    const written = this.#tail.then(() => this.#write(bytes))
    this.#tail = written.catch(() => undefined)
    return written
  }

  /** Resolves when less than the allowed number of bytes waits to be sent. */
  async drained(): Promise<void> {
    if (this.#queuedBytes > MAX_QUEUED_BYTES) await this.#tail
  }

  /** Frames until the peer ends, the stream breaks or `close` is called; never throws. */
  async *frames(): AsyncGenerator<Frame, void, undefined> {
    try {
      while (!this.#closed) {
        const chunk = await this.#stream.read()
        if (chunk === null) return
        yield* this.#decoder.push(chunk)
      }
    } catch {
      // A broken stream ends the connection as an orderly end does: ttrpc has no other sign (wire: "peer loss").
    } finally {
      this.close()
    }
  }

  close(): void {
    this.#closed = true
    this.#stream.destroy()
  }

  async #write(bytes: Uint8Array): Promise<void> {
    try {
      if (this.#closed) throw new Error('the connection is closed')
      await this.#stream.write(bytes)
    } catch (error) {
      this.close()
      throw error
    } finally {
      this.#queuedBytes -= bytes.byteLength
    }
  }
}
