/**
 * A descriptor as a `ByteStream`: vsock connections, pipes, pseudo-terminals. Nothing is read before it is asked for, so
 * an unread stream fills the kernel's buffer and pushes back on its writer.
 */
import type { ByteStream } from '#protocol/byte-stream'
import { UnavailableError } from '#protocol/errors'
import { errnoName, native, type Poller, READABLE, WRITABLE } from './binding.ts'

/** `socket`: both ways, half-close possible. `terminal`: both ways, no half-close. The others: one way. */
export type DescriptorKind = 'socket' | 'terminal' | 'reader' | 'writer'

const EAGAIN = -11
/** The peer left without a goodbye; for a reader that is an end like any other once all bytes were read. */
const ECONNRESET = -104

export class FdStream implements ByteStream {
  readonly #fd: number
  readonly #kind: DescriptorKind
  readonly #poller: Poller
  #wakeReader: (() => void) | undefined
  #wakeWriter: (() => void) | undefined
  #writes: Promise<void> = Promise.resolve()
  #ended = false
  #closed = false

  /** Takes over `fd`. */
  constructor(fd: number, kind: DescriptorKind) {
    this.#fd = fd
    this.#kind = kind
    this.#poller = new (native().Poller)(fd, (events) => this.#ready(events))
  }

  async read(): Promise<Uint8Array | null> {
    if (this.#kind === 'writer') return null
    while (!this.#closed) {
      const got = native().read(this.#fd)
      if (typeof got !== 'number') return got.byteLength === 0 ? null : got
      if (got !== EAGAIN) throw broken('read', got)
      await new Promise<void>((wake) => {
        this.#wakeReader = wake
        this.#arm()
      })
    }
    return null
  }

  write(bytes: Uint8Array): Promise<void> {
    const written = this.#writes.then(() => this.#writeAll(bytes))
    this.#writes = written.catch(() => undefined)
    return written
  }

  async end(): Promise<void> {
    await this.#writes
    if (this.#ended || this.#closed) return
    this.#ended = true
    if (this.#kind === 'writer') this.destroy()
    else if (this.#kind === 'socket') native().shutdownWrite(this.#fd)
  }

  destroy(): void {
    if (this.#closed) return
    this.#closed = true
    this.#poller.close()
    native().close(this.#fd)
    this.#ready(READABLE | WRITABLE)
  }

  /** For terminals. Does nothing once closed. */
  resize(columns: number, rows: number): void {
    if (!this.#closed) native().setWindowSize(this.#fd, columns, rows)
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    if (this.#kind === 'reader' || this.#ended) throw broken('write', ECONNRESET)
    for (let offset = 0; offset < bytes.byteLength; ) {
      if (this.#closed) throw broken('write', ECONNRESET)
      const put = native().write(this.#fd, bytes, offset)
      if (put >= 0) {
        offset += put
        continue
      }
      if (put !== EAGAIN) throw broken('write', put)
      await new Promise<void>((wake) => {
        this.#wakeWriter = wake
        this.#arm()
      })
    }
  }

  #arm(): void {
    const events = (this.#wakeReader ? READABLE : 0) | (this.#wakeWriter ? WRITABLE : 0)
    if (events !== 0 && !this.#closed) this.#poller.arm(events)
  }

  #ready(events: number): void {
    const reader = (events & READABLE) !== 0 ? this.#wakeReader : undefined
    const writer = (events & WRITABLE) !== 0 ? this.#wakeWriter : undefined
    if (reader !== undefined) this.#wakeReader = undefined
    if (writer !== undefined) this.#wakeWriter = undefined
    this.#arm()
    reader?.()
    writer?.()
  }
}

function broken(call: string, result: number): UnavailableError {
  return new UnavailableError('ERR_STREAM_BROKEN', `the stream broke: ${call}: ${errnoName(result)}`)
}
