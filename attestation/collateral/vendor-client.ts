/**
 * Asks AMD's and Intel's services, politely: few questions at once, none to a service that asked to be left alone
 * (429 or 503 with Retry-After), growing pauses after failures. Addresses are made here; redirects are not followed.
 */
import { errorText, UnavailableError } from '#protocol/errors'
import type { CollateralFile } from '../evidence/collateral.ts'

export interface VendorRequest {
  readonly url: string
  /** Headers of the answer that hold certificates. */
  readonly chainHeaders: readonly string[]
}

export interface VendorClientOptions {
  readonly now: () => Date
  /** A request, with its answer, milliseconds. Default 10000. */
  readonly timeoutMs?: number
  /** How long a handshake may wait for a service that said when to come back, milliseconds. Default 3000. */
  readonly maxWaitMs?: number
  readonly sleep?: (ms: number) => Promise<void>
}

const MAX_ANSWER_BYTES = 4 * 1024 * 1024
const ATTEMPTS = 3
const FIRST_PAUSE_MS = 200
const MAX_AT_ONCE = 8
const MAX_WAITING = 64
/** Longer ones are cut: a service shall not be able to silence itself for ever. */
const MAX_RETRY_AFTER_MS = 15 * 60_000
const DEFAULT_RETRY_AFTER_MS = 1_000

export class VendorClient {
  readonly #options: Required<VendorClientOptions>
  /** Origin → when it may be asked again. */
  readonly #quietUntil = new Map<string, number>()
  #running = 0
  readonly #waiting: (() => void)[] = []

  constructor(options: VendorClientOptions) {
    this.#options = { timeoutMs: 10_000, maxWaitMs: 3_000, sleep: timer, ...options }
  }

  /**
   * Body and certificate headers of a 200. Undefined when the service says that there is no such thing (404).
   *
   * @throws UnavailableError ERR_COLLATERAL_FETCH
   */
  async get(request: VendorRequest): Promise<readonly CollateralFile[] | undefined> {
    await this.#turn()
    try {
      return await this.#attempts(request)
    } finally {
      this.#running--
      this.#waiting.shift()?.()
    }
  }

  async #turn(): Promise<void> {
    if (this.#running >= MAX_AT_ONCE) {
      if (this.#waiting.length >= MAX_WAITING) throw failed('too many questions are waiting', true)
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    this.#running++
  }

  async #attempts(request: VendorRequest): Promise<readonly CollateralFile[] | undefined> {
    const { origin } = new URL(request.url)
    let last: UnavailableError | undefined
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      await this.#whenWelcome(origin, attempt)
      try {
        const answer = await this.#once(request, origin)
        if (answer !== 'again') return answer
        last = failed(`${origin} asks for patience`, true)
      } catch (cause) {
        last = failed(
          `${request.url}: ${errorText(cause instanceof Error ? (cause.cause ?? cause) : cause)}`,
          false,
          cause,
        )
      }
    }
    throw last ?? failed(request.url, false)
  }

  async #whenWelcome(origin: string, attempt: number): Promise<void> {
    const { now, maxWaitMs, sleep } = this.#options
    const quietMs = (this.#quietUntil.get(origin) ?? 0) - now().getTime()
    const pauseMs = Math.max(quietMs, attempt === 0 ? 0 : FIRST_PAUSE_MS * 2 ** (attempt - 1))
    if (pauseMs <= 0) return
    if (pauseMs > maxWaitMs) throw failed(`${origin} asked to be left alone for ${Math.ceil(pauseMs / 1000)} s`, true)
    await sleep(pauseMs)
  }

  async #once(
    { url, chainHeaders }: VendorRequest,
    origin: string,
  ): Promise<readonly CollateralFile[] | 'again' | undefined> {
    const response = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(this.#options.timeoutMs) })
    if (response.status === 429 || response.status === 503) {
      await response.body?.cancel()
      const quietMs = retryAfterMs(response.headers.get('retry-after'), this.#options.now())
      this.#quietUntil.set(origin, this.#options.now().getTime() + quietMs)
      return 'again'
    }
    const body = await readBody(response)
    if (response.status === 404) return undefined
    if (response.status !== 200) throw new Error(`HTTP status ${response.status}`)
    const chains = chainHeaders.flatMap((name) => {
      const value = response.headers.get(name)
      return value === null ? [] : [{ name: `${url} ${name}`, bytes: new TextEncoder().encode(value) }]
    })
    return [{ name: url, bytes: body }, ...chains]
  }
}

/** Seconds or an HTTP date (RFC 9110 section 10.2.3). */
function retryAfterMs(value: string | null, now: Date): number {
  if (value === null) return DEFAULT_RETRY_AFTER_MS
  const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1000 : new Date(value).getTime() - now.getTime()
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS) : DEFAULT_RETRY_AFTER_MS
}

async function readBody(response: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    length += chunk.length
    if (length > MAX_ANSWER_BYTES) throw new Error(`more than ${MAX_ANSWER_BYTES} bytes`)
    chunks.push(chunk)
  }
  return new Uint8Array(Buffer.concat(chunks))
}

function failed(why: string, busy: boolean, cause?: unknown): UnavailableError {
  return new UnavailableError('ERR_COLLATERAL_FETCH', `collateral could not be fetched: ${why}`, {
    hint: busy
      ? 'Wait, or import it (`caisson verifier collateral import`).'
      : 'Check the way to AMD and Intel, or import it.',
    ...(cause === undefined ? {} : { cause }),
  })
}

function timer(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
}
