/**
 * `HttpTransport` on undici's HTTP/1.1 client.
 *
 * Servers are trusted through the CAs given here and through nothing else: neither Node's built-in roots nor the
 * system's are consulted, and proxies and environment variables are ignored. Redirects are answers like any other.
 */
import { lookup as systemLookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { Readable } from 'node:stream'
import { CaissonError, UnavailableError, UsageError } from '../errors.ts'
import type { BodySink, HttpRequest, HttpResponse, HttpTransport, ResponseBody } from '../http-transport.ts'
import { Exchange } from './http-exchange.ts'
import { type ProxyOptions, proxyConnector } from './http-proxy.ts'
import { Agent } from './undici-agent.cjs'

const DEFAULT_IDLE_TIMEOUT_MS = 30_000

export interface UndiciTransportOptions {
  /** PEM certificates; each string may hold several. Without any, every https request fails. */
  readonly caPem: readonly string[]
  /** Host name → IP address to connect to instead of asking DNS. TLS still checks the name. */
  readonly hosts?: Readonly<Record<string, string>>
  /** Response header bytes, all together. Default 32 KiB. */
  readonly maxHeaderBytes?: number
  /** Connections per origin. Default 8. */
  readonly maxConnections?: number
  /** TCP and TLS together, milliseconds. Default 10000. */
  readonly connectTimeoutMs?: number
  /** Default: none, whatever the environment says. */
  readonly proxy?: ProxyOptions
}

/** Errors: see `HttpTransport`; ERR_HTTP_CUT and ERR_HTTP_PROTOCOL additionally, also while reading the body. */
export class UndiciTransport implements HttpTransport {
  readonly #agent: Agent
  readonly #trustsNobody: boolean

  constructor(options: UndiciTransportOptions) {
    this.#trustsNobody = options.caPem.length === 0
    const lookup = staticLookup(options.hosts ?? {})
    const timeoutMs = options.connectTimeoutMs ?? 10_000
    const direct = {
      ca: [...options.caPem],
      minVersion: 'TLSv1.2',
      rejectUnauthorized: true,
      timeout: timeoutMs,
      lookup,
    } as const
    this.#agent = new Agent({
      allowH2: false,
      pipelining: 1,
      connections: options.maxConnections ?? 8,
      maxHeaderSize: options.maxHeaderBytes ?? 32 * 1024,
      connect:
        options.proxy === undefined ? direct : proxyConnector(options.proxy, { ca: options.caPem, lookup, timeoutMs }),
    })
  }

  async request(request: HttpRequest): Promise<HttpResponse> {
    request.signal?.throwIfAborted()
    const url = parseUrl(request.url)
    if (url.protocol === 'https:' && this.#trustsNobody) {
      throw new UnavailableError('ERR_HTTP_TLS', `${url.origin}: no certificate authority is trusted`, {
        hint: "Name the CA of the server's certificate.",
      })
    }
    const idleTimeoutMs = request.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS
    const exchange = new Exchange(request.signal)
    try {
      this.#agent.dispatch(
        {
          origin: url.origin,
          path: url.pathname + url.search,
          method: request.method,
          headers: { ...request.headers },
          body: toBody(request.body),
          headersTimeout: idleTimeoutMs,
          bodyTimeout: idleTimeoutMs,
        },
        exchange,
      )
      const { status, headers } = await exchange.head
      return { status, headers: joinHeaders(headers), body: new ExchangeBody(exchange, url.origin, request.signal) }
    } catch (error) {
      throw translate(error, url.origin, request.signal)
    }
  }

  /** Ends idle connections at once and running requests with an error. */
  async close(): Promise<void> {
    await this.#agent.destroy()
  }
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    throw new UsageError('ERR_HTTP_URL', `not an http or https URL: ${JSON.stringify(text)}`)
  }
  return url
}

function staticLookup(hosts: Readonly<Record<string, string>>): LookupFunction {
  const addresses = new Map(Object.entries(hosts).map(([name, address]) => [name.toLowerCase(), address]))
  return (hostname, options, callback) => {
    const address = addresses.get(hostname.toLowerCase())
    if (address === undefined) {
      systemLookup(hostname, options, callback)
      return
    }
    const family = isIP(address)
    if (options.all === true) callback(null, [{ address, family }])
    else callback(null, address, family)
  }
}

function toBody(body: HttpRequest['body']): Uint8Array | Readable | null {
  if (body === undefined || body instanceof Uint8Array) return body ?? null
  return Readable.from(body, { objectMode: false })
}

function joinHeaders(
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Readonly<Record<string, string>> {
  const joined: Record<string, string> = Object.create(null)
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined) continue
    if (typeof value === 'string') joined[name] = value
    else joined[name] = name === 'set-cookie' ? (value[0] ?? '') : value.join(', ')
  }
  return joined
}

/** A class rather than a generator: `return()` before the first `next()` must free the connection too. */
class ExchangeBody implements ResponseBody {
  readonly #exchange: Exchange
  readonly #origin: string
  readonly #signal: AbortSignal | undefined

  constructor(exchange: Exchange, origin: string, signal: AbortSignal | undefined) {
    this.#exchange = exchange
    this.#origin = origin
    this.#signal = signal
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return {
      next: async () => {
        try {
          const value = await this.#exchange.next()
          return value === undefined ? { done: true, value } : { done: false, value }
        } catch (error) {
          throw translate(error, this.#origin, this.#signal)
        }
      },
      return: async () => {
        this.#exchange.abandon(new Error('nobody reads on'))
        return { done: true, value: undefined }
      },
    }
  }

  async pour(sink: BodySink): Promise<void> {
    try {
      await this.#exchange.pour(sink)
    } catch (error) {
      // Those of the sink among them.
      throw translate(error, this.#origin, this.#signal)
    }
  }
}

/** Codes of undici and Node by what they mean for the caller; everything TLS starts with one of TLS_PREFIXES. */
const CODES: ReadonlyMap<string, 'ERR_HTTP_CONNECT' | 'ERR_HTTP_STALLED' | 'ERR_HTTP_CUT'> = new Map([
  ['UND_ERR_CONNECT_TIMEOUT', 'ERR_HTTP_CONNECT'],
  ['ECONNREFUSED', 'ERR_HTTP_CONNECT'],
  ['EHOSTUNREACH', 'ERR_HTTP_CONNECT'],
  ['ENETUNREACH', 'ERR_HTTP_CONNECT'],
  ['ETIMEDOUT', 'ERR_HTTP_CONNECT'],
  ['ENOTFOUND', 'ERR_HTTP_CONNECT'],
  ['EAI_AGAIN', 'ERR_HTTP_CONNECT'],
  ['UND_ERR_HEADERS_TIMEOUT', 'ERR_HTTP_STALLED'],
  ['UND_ERR_BODY_TIMEOUT', 'ERR_HTTP_STALLED'],
  ['UND_ERR_SOCKET', 'ERR_HTTP_CUT'],
  ['UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'ERR_HTTP_CUT'],
  ['ECONNRESET', 'ERR_HTTP_CUT'],
  ['EPIPE', 'ERR_HTTP_CUT'],
  ['UND_ERR_CLOSED', 'ERR_HTTP_CUT'],
  ['UND_ERR_DESTROYED', 'ERR_HTTP_CUT'],
  ['UND_ERR_ABORTED', 'ERR_HTTP_CUT'],
])

const TLS_CODE =
  /^(?:ERR_TLS_|ERR_SSL_|EPROTO$|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|INVALID_CA$|INVALID_PURPOSE$|PATH_LENGTH_|HOSTNAME_MISMATCH$|ERROR_IN_CERT)/

function translate(error: unknown, origin: string, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted === true) return signal.reason
  if (error instanceof CaissonError) return error
  const code = codeOf(error)
  const options = { cause: error }
  if (TLS_CODE.test(code)) {
    return new UnavailableError('ERR_HTTP_TLS', `${origin}: TLS failed: ${code}`, {
      ...options,
      hint: "Check the server's certificate: its name, its dates, and that its CA is among the trusted ones.",
    })
  }
  const known = CODES.get(code)
  switch (known) {
    case 'ERR_HTTP_CONNECT':
      return new UnavailableError(known, `${origin}: no connection: ${code}`, options)
    case 'ERR_HTTP_STALLED':
      return new UnavailableError(known, `${origin}: no byte came within the time allowed`, options)
    case 'ERR_HTTP_CUT':
      return new UnavailableError(known, `${origin}: the connection ended before the answer was complete`, options)
    case undefined:
      return new UnavailableError('ERR_HTTP_PROTOCOL', `${origin}: not a valid HTTP exchange: ${code}`, options)
  }
}

/** The first code along the chain of causes and of aggregated connection attempts. */
function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  if ('code' in error && typeof error.code === 'string') return error.code
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0])
  return error.cause === undefined ? error.name : codeOf(error.cause)
}
