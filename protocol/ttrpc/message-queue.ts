/** Messages of one stream between the connection that receives them and the code that iterates over them. */
export class MessageQueue<T> implements AsyncIterable<T> {
  readonly #items: T[] = []
  readonly #onTake: (item: T) => void
  #ended = false
  #error: unknown
  #wake: (() => void) | undefined
  #space: (() => void) | undefined

  /** @param onTake called for each message that leaves the queue, taken or thrown away */
  constructor(onTake: (item: T) => void = () => undefined) {
    this.#onTake = onTake
  }

  get length(): number {
    return this.#items.length
  }

  get ended(): boolean {
    return this.#ended
  }

  /** Messages pushed after the end are thrown away. */
  push(item: T): void {
    if (this.#ended) {
      this.#onTake(item)
      return
    }
    this.#items.push(item)
    this.#wake?.()
  }

  /** The first end counts. With an error, the iteration throws it after the messages received before. */
  end(error?: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#wake?.()
    this.#space?.()
  }

  /** Ends the queue and throws away what was not taken. */
  discard(): void {
    this.end()
    for (const item of this.#items.splice(0)) this.#onTake(item)
  }

  /** Resolves true when fewer than `capacity` messages wait or the queue ended, false after `timeoutMs`. */
  async room(capacity: number, timeoutMs: number): Promise<boolean> {
    if (this.#items.length < capacity || this.#ended) return true
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#space = undefined
        resolve(false)
      }, timeoutMs)
      this.#space = () => {
        if (this.#items.length >= capacity && !this.#ended) return
        clearTimeout(timer)
        this.#space = undefined
        resolve(true)
      }
    })
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    try {
      while (true) {
        const item = this.#items.shift()
        if (item !== undefined) {
          this.#onTake(item)
          this.#space?.()
          yield item
          continue
        }
        if (this.#ended) {
          if (this.#error !== undefined) throw this.#error
          return
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
        this.#wake = undefined
      }
    } finally {
      this.discard()
    }
  }
}
