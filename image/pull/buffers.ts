/** Buffers that go round, so that memory does not depend on how fast garbage is collected; freed at the end. */
export class Buffers implements Disposable {
  readonly #bytes: number
  readonly #free: Uint8Array<ArrayBuffer>[] = []

  /** @param bytes of each */
  constructor(bytes: number) {
    this.#bytes = bytes
  }

  take(): Uint8Array<ArrayBuffer> {
    return this.#free.pop() ?? new Uint8Array(this.#bytes)
  }

  /** Whoever gives one back writes to it no more. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    this.#free.push(buffer)
  }

  /** Those that were given back are no more. */
  [Symbol.dispose](): void {
    // Moved to where nothing is: the memory goes at once, and not when the collector comes by.
    for (const { buffer } of this.#free.splice(0)) buffer.transfer(0)
  }
}

/** So many at a time; the others wait in line. */
export class Slots {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(count: number) {
    this.#free = count
  }

  async acquire(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    if (this.#free > 0) this.#free--
    else await this.#wait(signal)
    let held = true
    return () => {
      if (!held) return
      held = false
      const next = this.#waiting.shift()
      if (next === undefined) this.#free++
      else next()
    }
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        signal.removeEventListener('abort', stop)
        resolve()
      }
      const stop = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1)
        reject(signal.reason)
      }
      this.#waiting.push(enter)
      signal.addEventListener('abort', stop, { once: true })
    })
  }
}
