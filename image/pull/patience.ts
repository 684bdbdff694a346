/**
 * How long a pull puts up with a registry: as long as bytes come. What ends it is a stretch of time without progress, not
 * the time it takes; within that stretch everything that may pass is tried again, ever more rarely, with jitter so that
 * a thousand guests do not return as one.
 */
import { CaissonError, UnavailableError } from '#protocol/errors'
import { RegistryStatusError } from '../registry/status-error.ts'

export interface PatienceOptions {
  /** The longest stretch without progress, milliseconds. */
  readonly noProgressMs: number
  readonly signal: AbortSignal
  /** Told before each pause, and when bytes come too slowly. */
  readonly onTrouble: (trouble: Trouble) => void
}

export interface Trouble {
  readonly error: CaissonError
  /** 0 for what is no failure yet. */
  readonly retryInMs: number
}

/** So many bytes are progress; fewer keep a connection busy and bring nothing. */
const PROGRESS_BYTES = 64 * 1024
const FIRST_PAUSE_MS = 200
const LONGEST_PAUSE_MS = 10_000

const PASSING: ReadonlySet<string> = new Set([
  'ERR_HTTP_CONNECT',
  'ERR_HTTP_CUT',
  'ERR_HTTP_STALLED',
  'ERR_HTTP_PROTOCOL',
  'ERR_BLOB_SHORT',
  'ERR_REGISTRY_RANGE',
  'ERR_REGISTRY_SLOW',
])
const PASSING_STATUS: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504])

/** Whether the same request may succeed later. */
export function mayPass(error: unknown): error is CaissonError {
  if (error instanceof RegistryStatusError) return PASSING_STATUS.has(error.status)
  return error instanceof CaissonError && PASSING.has(error.code)
}

export class Patience {
  readonly #options: PatienceOptions
  #sinceMs = performance.now()
  #bytes = 0
  #pauses = 0
  #told = false

  constructor(options: PatienceOptions) {
    this.#options = options
  }

  /** Throws `UnavailableError` ERR_REGISTRY_SLOW when bytes come, and too few of them. */
  received(bytes: number): void {
    this.#bytes += bytes
    if (this.#bytes >= PROGRESS_BYTES) {
      this.#restart()
      return
    }
    const waitedMs = performance.now() - this.#sinceMs
    if (waitedMs < this.#options.noProgressMs / 2) return
    const error = new UnavailableError(
      'ERR_REGISTRY_SLOW',
      `only ${this.#bytes} bytes came in ${Math.round(waitedMs / 1000)} seconds`,
      { hint: 'Look at the registry and at the network between the two.' },
    )
    if (waitedMs >= this.#options.noProgressMs) throw error
    if (!this.#told) this.#options.onTrouble({ error, retryInMs: 0 })
    this.#told = true
  }

  /** Something was completed: from here on a new stretch is counted. */
  done(): void {
    this.#restart()
  }

  /** Returns when it is time to try again; throws `error` when it is not one that passes, or patience has run out. */
  async pause(error: unknown): Promise<void> {
    const { noProgressMs, signal, onTrouble } = this.#options
    signal.throwIfAborted()
    if (!mayPass(error)) throw error
    const asked = error instanceof RegistryStatusError ? (error.retryAfterMs ?? 0) : 0
    const longest = Math.min(FIRST_PAUSE_MS * 2 ** this.#pauses++, LONGEST_PAUSE_MS)
    // Between half of it and all of it; never sooner than the registry asks for.
    const retryInMs = Math.max(asked, Math.round(longest * (0.5 + Math.random() / 2)))
    if (performance.now() - this.#sinceMs + retryInMs > noProgressMs) throw error
    onTrouble({ error, retryInMs })
    await sleep(retryInMs, signal)
  }

  #restart(): void {
    this.#sinceMs = performance.now()
    this.#bytes = 0
    this.#pauses = 0
    this.#told = false
  }
}

/** Runs `work` again until it succeeds, fails for good, or patience runs out. */
export async function patiently<T>(options: PatienceOptions, work: () => Promise<T>): Promise<T> {
  const patience = new Patience(options)
  for (;;) {
    try {
      return await work()
    } catch (error) {
      await patience.pause(error)
    }
  }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop)
      resolve()
    }, ms)
    signal.addEventListener('abort', stop, { once: true })
  })
}
