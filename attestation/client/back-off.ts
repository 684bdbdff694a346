/** Trying again while a part is unavailable, with growing pauses. */
import { UnavailableError } from '#protocol/errors'

export interface BackOff {
  /** Attempts in all. */
  readonly attempts: number
  /** Before the second attempt, milliseconds; doubled each time. */
  readonly firstDelayMs: number
  readonly maxDelayMs: number
}

export const DEFAULT_BACK_OFF: BackOff = { attempts: 8, firstDelayMs: 250, maxDelayMs: 8_000 }

export type Sleep = (ms: number, signal?: AbortSignal) => Promise<void>

/** Calls `work` until it succeeds, fails for another reason than `isWorthRetrying`, or the attempts are used up. */
export async function withBackOff<T>(
  work: () => Promise<T>,
  options: {
    backOff: BackOff
    sleep: Sleep
    signal?: AbortSignal | undefined
    isWorthRetrying: (error: unknown) => boolean
  },
): Promise<T> {
  const { backOff, sleep, signal, isWorthRetrying } = options
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (attempt >= backOff.attempts || !isWorthRetrying(error)) throw error
    }
    await sleep(Math.min(backOff.firstDelayMs * 2 ** (attempt - 1), backOff.maxDelayMs), signal)
  }
}

export function isUnavailable(error: unknown): boolean {
  return error instanceof UnavailableError && error.code === 'ERR_VERIFIER_UNAVAILABLE'
}
