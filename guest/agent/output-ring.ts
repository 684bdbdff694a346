/**
 * The newest output of a process, kept for logs and late readers.
 *
 * Without readers the oldest output is dropped and the process never waits. An attached reader loses nothing: what it has
 * not taken yet is kept, and the process waits as it would on a full pipe.
 */
export type OutputSource = 'stdout' | 'stderr'

interface Chunk {
  readonly index: number
  readonly source: OutputSource
  readonly bytes: Uint8Array
}

interface Reader {
  /** Index of the next chunk to look at. */
  next: number
  readonly sources: ReadonlySet<OutputSource>
}

/** What a chunk costs besides its bytes, so that one-byte writes are bounded too. */
const CHUNK_OVERHEAD = 64

export class OutputRing {
  readonly #maxBytes: number
  readonly #chunks: Chunk[] = []
  readonly #readers = new Set<Reader>()
  readonly #open: Set<OutputSource>
  readonly #waiting = new Set<() => void>()
  #bytes = 0
  #nextIndex = 0

  /** @param sources those that will be pushed and each ended */
  constructor(maxBytes: number, sources: readonly OutputSource[]) {
    this.#maxBytes = maxBytes
    this.#open = new Set(sources)
  }

  /** Resolves when the bytes are kept. */
  async push(source: OutputSource, bytes: Uint8Array): Promise<void> {
    const size = bytes.byteLength + CHUNK_OVERHEAD
    while (this.#bytes + size > this.#maxBytes && this.#chunks.length > 0) {
      if (this.#oldestIsHeld()) await this.#change()
      else this.#dropOldest()
    }
    this.#chunks.push({ index: this.#nextIndex++, source, bytes })
    this.#bytes += size
    this.#changed()
  }

  /** No more output from this source. */
  end(source: OutputSource): void {
    this.#open.delete(source)
    this.#changed()
  }

  /**
   * Reads from the oldest output that is kept; null at the end. Close it, else the process may wait for ever.
   * @param follow false: end with what is there now
   */
  reader(sources: readonly OutputSource[], follow: boolean): OutputReader {
    const reader: Reader = { next: this.#chunks[0]?.index ?? this.#nextIndex, sources: new Set(sources) }
    this.#readers.add(reader)
    const end = follow ? Number.POSITIVE_INFINITY : this.#nextIndex
    let closed = false
    return {
      read: async () => {
        while (!closed) {
          const chunk = this.#take(reader, end)
          if (chunk !== undefined) return chunk.bytes
          if (reader.next >= end || !sources.some((source) => this.#open.has(source))) return null
          await this.#change()
        }
        return null
      },
      close: () => {
        closed = true
        this.#readers.delete(reader)
        this.#changed()
      },
    }
  }

  #take(reader: Reader, end: number): Chunk | undefined {
    const oldest = this.#chunks[0]
    if (oldest === undefined) return undefined
    // Nothing a reader has not passed is ever dropped, so its place is still there.
    for (let at = reader.next - oldest.index; at < this.#chunks.length; at++) {
      const chunk = this.#chunks[at]
      if (chunk === undefined || chunk.index >= end) return undefined
      reader.next = chunk.index + 1
      if (!reader.sources.has(chunk.source)) continue
      this.#changed()
      return chunk
    }
    return undefined
  }

  #oldestIsHeld(): boolean {
    const oldest = this.#chunks[0]
    if (oldest === undefined) return false
    return [...this.#readers].some((reader) => {
      if (reader.next > oldest.index) return false
      if (reader.sources.has(oldest.source)) return true
      reader.next = oldest.index + 1
      return false
    })
  }

  #dropOldest(): void {
    const oldest = this.#chunks.shift()
    if (oldest !== undefined) this.#bytes -= oldest.bytes.byteLength + CHUNK_OVERHEAD
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve))
  }

  #changed(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const wake of waiting) wake()
  }
}

export interface OutputReader {
  read(): Promise<Uint8Array | null>
  close(): void
}
