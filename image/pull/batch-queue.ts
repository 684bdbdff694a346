/** Between who fills buffers as the network gives them and who takes them one by one: one lies ready, the next one waits. */
export interface Batch {
  readonly bytes: Uint8Array
  /** The bytes are not needed any more. */
  readonly release: () => void
}

export class BatchQueue implements AsyncIterable<Batch> {
  readonly #batches: Batch[] = []
  #end: { readonly error?: unknown } | undefined
  #dropped = false
  #wakeTaker: () => void = () => {}
  #wakePutter: () => void = () => {}

  /** Undefined: go on at once. */
  put(batch: Batch): Promise<void> | undefined {
    if (this.#dropped) {
      batch.release()
      return undefined
    }
    this.#batches.push(batch)
    this.#wakeTaker()
    if (this.#batches.length < 2) return undefined
    return new Promise((resolve) => {
      this.#wakePutter = resolve
    })
  }

  /** After the last batch. */
  end(error?: unknown): void {
    this.#end = error === undefined ? {} : { error }
    this.#wakeTaker()
  }

  /** Nobody takes any more. */
  drop(): void {
    this.#dropped = true
    for (const { release } of this.#batches.splice(0)) release()
    this.#wakePutter()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch> {
    for (;;) {
      const batch = this.#batches.shift()
      if (batch !== undefined) {
        this.#wakePutter()
        yield batch
        continue
      }
      if (this.#end !== undefined) {
        if (this.#end.error !== undefined) throw this.#end.error
        return
      }
      await new Promise<void>((resolve) => {
        this.#wakeTaker = resolve
      })
    }
  }
}
