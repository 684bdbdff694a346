/**
 * Node's Duplex (net.Socket, a vsock Duplex) as a `ByteStream`. Sockets should be made with `allowHalfOpen: true`, else
 * Node closes the writing side when the peer half-closes.
 */
import type { Duplex } from 'node:stream'
import type { ByteStream } from '../byte-stream.ts'
import { errorText, UnavailableError } from '../errors.ts'

/** Takes over `duplex`: nobody else may read from it or write to it afterwards. */
export function byteStreamFromDuplex(duplex: Duplex): ByteStream {
  return new DuplexByteStream(duplex)
}

class DuplexByteStream implements ByteStream {
  readonly #duplex: Duplex
  #error: Error | undefined
  #destroyedByUs = false

  constructor(duplex: Duplex) {
    this.#duplex = duplex
    // Without a listener an error event ends the process; it is reported by the read or write that meets it.
    duplex.on('error', (error) => {
      this.#error = error
    })
  }

  async read(): Promise<Uint8Array | null> {
    while (true) {
      const chunk: unknown = this.#duplex.read()
      if (chunk instanceof Uint8Array) {
        if (chunk.byteLength > 0) return chunk
        continue
      }
      if (this.#duplex.readableEnded || this.#destroyedByUs) return null
      if (this.#error !== undefined) throw brokenStream(this.#error)
      if (this.#duplex.destroyed) return null
      await this.#readable()
    }
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#duplex.write(bytes, (error) => (error ? reject(brokenStream(error)) : resolve()))
    })
  }

  end(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#duplex.writableFinished) return resolve()
      this.#duplex.end((error?: Error | null) => (error ? reject(brokenStream(error)) : resolve()))
    })
  }

  destroy(): void {
    this.#destroyedByUs = true
    this.#duplex.destroy()
  }

  #readable(): Promise<void> {
    return new Promise((resolve) => {
      const events = ['readable', 'end', 'close', 'error'] as const
      const done = () => {
        for (const event of events) this.#duplex.off(event, done)
        resolve()
      }
      for (const event of events) this.#duplex.on(event, done)
    })
  }
}

function brokenStream(cause: Error): UnavailableError {
  return new UnavailableError('ERR_STREAM_BROKEN', `the stream broke: ${errorText(cause)}`, {
    hint: 'The other side ended without closing the stream; look at why it ended',
    cause,
  })
}
