/** Which of two is the slower: who takes batches, or who brings them. */
export class Pace {
  readonly #stretchBytes: number
  readonly #now: () => number
  #since: number
  #bytes = 0
  #waitedMs = 0
  #workedMs = 0

  /** @param stretchBytes over so many bytes it is judged, and anew after them. @param now milliseconds */
  constructor(stretchBytes: number, now: () => number = () => performance.now()) {
    this.#stretchBytes = stretchBytes
    this.#now = now
    this.#since = now()
  }

  /** A batch is there. */
  came(bytes: number): void {
    this.#bytes += bytes
    this.#waitedMs += this.#lap()
  }

  /** Its taker is done with it. Whether, over a stretch that ends here, the taker waited more than it worked. */
  taken(): boolean {
    this.#workedMs += this.#lap()
    if (this.#bytes < this.#stretchBytes) return false
    const waits = this.#waitedMs > this.#workedMs
    this.#bytes = 0
    this.#waitedMs = 0
    this.#workedMs = 0
    return waits
  }

  #lap(): number {
    const before = this.#since
    this.#since = this.#now()
    return this.#since - before
  }
}
