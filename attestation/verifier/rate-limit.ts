/** A tenant's share of requests: a bucket that fills evenly and holds what arrives in ten seconds. */
import { UnavailableError } from '#protocol/errors'

const BURST_S = 10

export class RateLimit {
  readonly #now: () => Date
  #perSecond: number
  #tokens: number
  #filledMs: number

  constructor(perMinute: number, now: () => Date) {
    this.#now = now
    this.#perSecond = perMinute / 60
    this.#tokens = this.#burst()
    this.#filledMs = now().getTime()
  }

  withLimit(perMinute: number): this {
    this.#perSecond = perMinute / 60
    this.#tokens = Math.min(this.#tokens, this.#burst())
    return this
  }

  /** @throws UnavailableError ERR_RATE_LIMIT */
  take(): void {
    const nowMs = this.#now().getTime()
    const filled = this.#tokens + (Math.max(0, nowMs - this.#filledMs) / 1000) * this.#perSecond
    this.#tokens = Math.min(filled, this.#burst())
    this.#filledMs = nowMs
    if (this.#tokens < 1) {
      throw new UnavailableError('ERR_RATE_LIMIT', 'this tenant’s guests ask more often than they may', {
        hint: 'Wait and try again; an administrator of the service can raise requestsPerMinute.',
      })
    }
    this.#tokens--
  }

  #burst(): number {
    return Math.max(1, this.#perSecond * BURST_S)
  }
}
