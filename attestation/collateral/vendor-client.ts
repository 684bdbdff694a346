/**
 * Asks AMD's and Intel's services, politely: few questions at once, none to a service that asked to be left alone
 * (429 or 503 with Retry-After), growing pauses after failures. Addresses are made here; redirects are not followed.
 *
 * Questions about what evidence names (a chip, a kind of platform) have turns of their own, tenant by tenant, and a service
 * that will not answer them for a while is still asked for its lists: those are few, and everybody needs them.
 */
import { errorText, UnavailableError } from '#protocol/errors'
import type { CollateralFile } from '../evidence/collateral.ts'
import type { CollateralRequest } from '../evidence/online/fetch-collateral.ts'
import { Turns } from './turns.ts'

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
const FIXED_TURNS = { atOnce: 8, atOnceOfOne: 8 } as const
const CHOSEN_TURNS = { atOnce: 8, atOnceOfOne: 4 } as const
/** Longer ones are cut: a service shall not be able to silence itself for ever. */
const MAX_RETRY_AFTER_MS = 15 * 60_000
const DEFAULT_RETRY_AFTER_MS = 1_000

export class VendorClient {
  readonly #options: Required<VendorClientOptions>
  /** Origin → when it may be asked again. */
  readonly #quietUntil = new Map<string, number>()
  /** The same, for what evidence chose alone. */
  readonly #chosenQuietUntil = new Map<string, number>()
  readonly #fixed = new Turns(FIXED_TURNS)
  readonly #chosen = new Turns(CHOSEN_TURNS)

  constructor(options: VendorClientOptions) {
    this.#options = { timeoutMs: 10_000, maxWaitMs: 3_000, sleep: timer, ...options }
  }

  /**
   * Body and certificate headers of a 200. Undefined when the service says that there is no such thing (404).
   *
   * @param tenant for whose guest it is asked
   * @throws UnavailableError ERR_COLLATERAL_FETCH
   */
  async get(request: CollateralRequest, tenant: string): Promise<readonly CollateralFile[] | undefined> {
    const turns = request.chosen ? this.#chosen : this.#fixed
    return await turns.run(tenant, () => this.#attempts(request))
  }

  async #attempts(request: CollateralRequest): Promise<readonly CollateralFile[] | undefined> {
    const { origin } = new URL(request.url)
    let last: UnavailableError | undefined
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      await this.#whenWelcome(origin, request, attempt)
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

  async #whenWelcome(origin: string, { chosen }: CollateralRequest, attempt: number): Promise<void> {
    const { now, maxWaitMs, sleep } = this.#options
    const until = Math.max(this.#quietUntil.get(origin) ?? 0, chosen ? (this.#chosenQuietUntil.get(origin) ?? 0) : 0)
    const quietMs = until - now().getTime()
    const pauseMs = Math.max(quietMs, attempt === 0 ? 0 : FIRST_PAUSE_MS * 2 ** (attempt - 1))
    if (pauseMs <= 0) return
    if (pauseMs > maxWaitMs) throw failed(`${origin} asked to be left alone for ${Math.ceil(pauseMs / 1000)} s`, true)
    await sleep(pauseMs)
  }

  async #once(
    { url, chainHeaders, chosen }: CollateralRequest,
    origin: string,
  ): Promise<readonly CollateralFile[] | 'again' | undefined> {
    const response = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(this.#options.timeoutMs) })
    if (response.status === 429 || response.status === 503) {
      await response.body?.cancel()
      const quietMs = retryAfterMs(response.headers.get('retry-after'), this.#options.now())
      const quiet = chosen ? this.#chosenQuietUntil : this.#quietUntil
      quiet.set(origin, this.#options.now().getTime() + quietMs)
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
