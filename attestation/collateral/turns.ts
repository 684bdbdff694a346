/**
 * A few at once, of each asker fewer. Whoever has to wait gets a turn after one of every other asker that waits, so that the
 * many of one do not hold up the few of another.
 */
export interface TurnLimits {
  readonly atOnce: number
  readonly atOnceOfOne: number
}

export class Turns {
  readonly #limits: TurnLimits
  readonly #running = new Map<string, number>()
  #all = 0
  /** In the order in which askers get their next turn. */
  readonly #waiting = new Map<string, (() => void)[]>()

  constructor(limits: TurnLimits) {
    this.#limits = limits
  }

  /** Does the work when it is its asker's turn. */
  async run<T>(asker: string, work: () => Promise<T>): Promise<T> {
    if (this.#hasRoom(asker)) this.#begin(asker)
    else await this.#turn(asker)
    try {
      return await work()
    } finally {
      this.#end(asker)
    }
  }

  /** Who is told of the turn has begun it already. */
  #turn(asker: string): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(asker) ?? []
      waiting.push(resolve)
      this.#waiting.set(asker, waiting)
    })
  }

  #hasRoom(asker: string): boolean {
    return this.#all < this.#limits.atOnce && (this.#running.get(asker) ?? 0) < this.#limits.atOnceOfOne
  }

  #begin(asker: string): void {
    this.#all++
    this.#running.set(asker, (this.#running.get(asker) ?? 0) + 1)
  }

  #end(asker: string): void {
    this.#all--
    const left = (this.#running.get(asker) ?? 1) - 1
    if (left > 0) this.#running.set(asker, left)
    else this.#running.delete(asker)
    for (const [next, waiting] of this.#waiting) {
      if (!this.#hasRoom(next)) continue
      const tell = waiting.shift()
      this.#waiting.delete(next)
      if (waiting.length > 0) this.#waiting.set(next, waiting)
      this.#begin(next)
      tell?.()
      return
    }
  }
}
