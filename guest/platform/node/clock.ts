/** `Clock` on Node. The wall clock is the host's guess until it is set once, and only moves forwards from then on. */
import { setTimeout as sleep } from 'node:timers/promises'
import { setWallClock } from '#native/guest/index'
import type { Clock } from '../platform.ts'

export class NodeClock implements Clock {
  #isSet = false

  monotonicMs(): number {
    return Number(process.hrtime.bigint() / 1_000_000n)
  }

  now(): Date {
    return new Date()
  }

  set(to: Date): void {
    if (this.#isSet && to.getTime() <= Date.now()) return
    setWallClock(to.getTime())
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
