/** Two byte streams connected to each other, with as much room in between as a test needs. */
import type { ByteStream } from '#protocol/byte-stream'

class End implements ByteStream {
  peer: End | undefined
  readonly #incoming: Uint8Array[] = []
  #ended = false
  #closed = false
  #wake: (() => void) | undefined

  async read(): Promise<Uint8Array | null> {
    while (true) {
      const next = this.#incoming.shift()
      if (next !== undefined) return next
      if (this.#closed || this.#ended) return null
      await new Promise<void>((wake) => {
        this.#wake = wake
      })
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { peer } = this
    if (this.#closed || peer === undefined || peer.#closed) throw new Error('closed')
    peer.#incoming.push(bytes.slice())
    peer.#notify()
  }

  async end(): Promise<void> {
    const { peer } = this
    if (peer === undefined) return
    peer.#ended = true
    peer.#notify()
  }

  destroy(): void {
    if (this.#closed) return
    this.#closed = true
    this.#incoming.length = 0
    this.#notify()
    void this.end()
  }

  #notify(): void {
    this.#wake?.()
    this.#wake = undefined
  }
}

export function streamPair(): [ByteStream, ByteStream] {
  const [a, b] = [new End(), new End()]
  a.peer = b
  b.peer = a
  return [a, b]
}

/** Everything until the end of the stream. */
export async function textOf(stream: Pick<ByteStream, 'read'>): Promise<string> {
  let text = ''
  for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) {
    text += new TextDecoder().decode(chunk)
  }
  return text
}
