/** `Clock` on Node. The wall clock is the host's guess until it is set once, and only moves forwards from then on. */
import { setTimeout as sleep } from 'node:timers/promises'
import { setWallClock } from '#native/guest/index'
import type { Clock } from '../platform.ts'

/** The machine's clock, milliseconds since the Unix epoch. */
export interface WallClock {
  now(): number
  set(ms: number): void
}

const MACHINE: WallClock = { now: () => Date.now(), set: (ms) => setWallClock(ms) }

export class NodeClock implements Clock {
  readonly #wall: WallClock
  #isSet = false

  constructor(wall: WallClock = MACHINE) {
    this.#wall = wall
  }

  monotonicMs(): number {
    return Number(process.hrtime.bigint() / 1_000_000n)
  }

  now(): Date {
    return new Date(this.#wall.now())
  }

  set(to: Date): void {
    if (this.#isSet && to.getTime() <= this.#wall.now()) return
    this.#wall.set(to.getTime())
    this.#isSet = true
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    try {
      await sleep(ms, undefined, signal === undefined ? {} : { signal })
    } catch (error) {
      if (signal?.aborted !== true) throw error
    }
  }
}
