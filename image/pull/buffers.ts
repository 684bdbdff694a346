/** Buffers that go round, so that memory does not depend on how fast garbage is collected. */
export class Buffers {
  readonly #bytes: number
  readonly #free: Uint8Array[] = []

  /** @param bytes of each */
  constructor(bytes: number) {
    this.#bytes = bytes
  }

  take(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(this.#bytes)
  }

  /** Whoever gives one back writes to it no more. */
  give(buffer: Uint8Array): void {
    this.#free.push(buffer)
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
