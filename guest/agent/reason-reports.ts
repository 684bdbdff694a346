/**
 * Reasons on their way to the tenant's verifier: a few at once, then one now and then, one after the other, behind everything
 * else. A host can make a guest refuse as often as it likes; it must not make it talk as often, nor wait.
 */
import type { ReasonReport } from '#protocol/reason-report'
import type { Clock } from '../platform/platform.ts'
import { MAX_WAITING_REPORTS, REPORT_BURST, REPORT_INTERVAL_MS } from './limits.ts'

export interface ReasonReportsOptions {
  readonly clock: Pick<Clock, 'monotonicMs' | 'sleep'>
  /** May fail: what the verifier does not get, the guest still has. */
  readonly tell: (report: ReasonReport) => Promise<void>
}

export class ReasonReports {
  readonly #options: ReasonReportsOptions
  readonly #waiting: ReasonReport[] = []
  #telling: Promise<void> | undefined
  #allowance = REPORT_BURST
  #countedMs: number

  constructor(options: ReasonReportsOptions) {
    this.#options = options
    this.#countedMs = options.clock.monotonicMs()
  }

  /** Returns at once. The newest is dropped when too many wait. */
  add(report: ReasonReport): void {
    if (this.#waiting.length >= MAX_WAITING_REPORTS) return
    this.#waiting.push(report)
    this.#telling ??= this.#tellAll()
  }

  /** Resolves when none waits. */
  async told(): Promise<void> {
    await this.#telling
  }

  async #tellAll(): Promise<void> {
    for (let report = this.#waiting.shift(); report !== undefined; report = this.#waiting.shift()) {
      await this.#turn()
      await this.#options.tell(report).catch(() => undefined)
    }
    this.#telling = undefined
  }

  async #turn(): Promise<void> {
    const { clock } = this.#options
    const nowMs = clock.monotonicMs()
    const earned = (nowMs - this.#countedMs) / REPORT_INTERVAL_MS
    this.#allowance = Math.min(REPORT_BURST, this.#allowance + earned)
    this.#countedMs = nowMs
    const missing = 1 - this.#allowance
    this.#allowance -= 1
    if (missing > 0) await clock.sleep(missing * REPORT_INTERVAL_MS)
  }
}
