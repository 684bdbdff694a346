/**
 * The verifier's HTTP(S) listener: limits on everything a stranger can send, and nothing about what it means.
 *
 * Paths are split, never normalised or percent-decoded: every name we serve is made of characters that need neither, so
 * a path with tricks in it simply matches nothing.
 */
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { MalformedError, UnavailableError, UsageError } from '#protocol/errors'

/**
 * What TLS is spoken, by the names of Mozilla's "Server Side TLS": `modern` is TLS 1.3 alone; `intermediate` also TLS 1.2,
 * with forward secrecy and authenticated encryption.
 */
export type TlsProfile = 'modern' | 'intermediate'

const TLS_1_3 = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256']
const TLS_1_2 = ['ECDSA', 'RSA'].flatMap((key) =>
  ['AES128-GCM-SHA256', 'AES256-GCM-SHA384', 'CHACHA20-POLY1305'].map((cipher) => `ECDHE-${key}-${cipher}`),
)
const TLS_PROFILES: Readonly<Record<TlsProfile, { minVersion: 'TLSv1.2' | 'TLSv1.3'; ciphers: string }>> = {
  modern: { minVersion: 'TLSv1.3', ciphers: TLS_1_3.join(':') },
  intermediate: { minVersion: 'TLSv1.2', ciphers: [...TLS_1_3, ...TLS_1_2].join(':') },
}

export interface HttpExchange {
  readonly method: string
  /** Between the slashes, as sent: "/kbs/v0/auth" → ["kbs", "v0", "auth"]. */
  readonly segments: readonly string[]
  readonly query: URLSearchParams
  readonly headers: Readonly<Record<string, string | undefined>>
  /** @throws MalformedError ERR_BODY_TOO_LARGE, ERR_BODY_CUT */
  body(maxBytes: number): Promise<Uint8Array>
}

export interface HttpReply {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** Objects are sent as JSON. */
  readonly body?: Uint8Array | object
}

export interface ListenOptions {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
  /** Absent: plain HTTP, on a loopback address only. */
  readonly tls: { readonly certificatePem: string; readonly privateKeyPem: string } | undefined
  /** Default "intermediate". */
  readonly tlsProfile?: TlsProfile
  /** Must not throw: what it throws is answered with an empty 500. */
  readonly answer: (exchange: HttpExchange) => Promise<HttpReply>
  /** More are closed as they come. Default 512. */
  readonly maxConnections?: number
  /** A whole request, header and body, must have arrived after this long, milliseconds. Default 20000. */
  readonly requestTimeoutMs?: number
}

export interface RunningListener {
  readonly url: string
  /** Takes no more requests, lets the running ones end (for five seconds), then closes every connection. */
  close(): Promise<void>
}

/** A token with many images travels in a header. */
const MAX_HEADER_BYTES = 64 * 1024
const HEADERS_TIMEOUT_MS = 10_000
const TLS_HANDSHAKE_TIMEOUT_MS = 10_000
/** How long clients are told that an idle connection stays open. */
const KEEP_ALIVE_MS = 5_000
/** It stays open this much longer: a request that is on its way when the time is over must not be lost. */
const KEEP_ALIVE_BUFFER_MS = 15_000
const IDLE_TIMEOUT_MS = 30_000
const CLOSE_GRACE_MS = 5_000
const LOOPBACK = new Set(['127.0.0.1', '::1', 'localhost'])

/**
 * @throws UsageError ERR_TLS_REQUIRED for plain HTTP elsewhere than on loopback
 * @throws UnavailableError ERR_LISTEN
 */
export async function listen(options: ListenOptions): Promise<RunningListener> {
  if (options.tls === undefined && !LOOPBACK.has(options.host)) {
    throw new UsageError('ERR_TLS_REQUIRED', `plain HTTP on ${JSON.stringify(options.host)} is refused`, {
      hint: 'Give the verifier a certificate, or listen on 127.0.0.1.',
    })
  }
  const server = createServer(options)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, resolve)
  }).catch((cause: unknown) => {
    throw new UnavailableError('ERR_LISTEN', `cannot listen on ${options.host} port ${options.port}`, {
      cause,
      hint: 'Choose another port, or stop what uses this one.',
    })
  })
  const { port } = addressOf(server)
  const host = options.host.includes(':') ? `[${options.host}]` : options.host
  return {
    url: `${options.tls === undefined ? 'http' : 'https'}://${host}:${port}`,
    close: () => close(server),
  }
}

function createServer(options: ListenOptions): Server {
  const requestTimeout = options.requestTimeoutMs ?? 20_000
  const http = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: Math.min(HEADERS_TIMEOUT_MS, requestTimeout),
    requestTimeout, // a body that trickles in ends here
    connectionsCheckingInterval: 1_000,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveTimeoutBuffer: KEEP_ALIVE_BUFFER_MS,
  }
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    void serve(request, response, { ...options, isClosing: () => !server.listening })
  }
  const server: Server =
    options.tls === undefined
      ? createHttpServer(http, listener)
      : createHttpsServer(
          {
            ...http,
            cert: options.tls.certificatePem,
            key: options.tls.privateKeyPem,
            ...TLS_PROFILES[options.tlsProfile ?? 'intermediate'],
            handshakeTimeout: TLS_HANDSHAKE_TIMEOUT_MS,
          },
          listener,
        )
  server.maxConnections = options.maxConnections ?? 512
  server.timeout = IDLE_TIMEOUT_MS // a client that does not read its answer ends here
  return server
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  options: Pick<ListenOptions, 'answer'> & { isClosing: () => boolean },
): Promise<void> {
  let reply: HttpReply
  try {
    reply = await options.answer(toExchange(request))
  } catch {
    reply = { status: 500 }
  }
  const body = reply.body instanceof Uint8Array ? reply.body : encodeJson(reply.body)
  response.writeHead(reply.status, {
    'cache-control': 'no-store',
    ...(body === undefined ? {} : { 'content-type': reply.body instanceof Uint8Array ? BYTES : 'application/json' }),
    'content-length': String(body?.byteLength ?? 0),
    // What is left of an unread body is not worth reading.
    ...(request.complete && !options.isClosing() ? {} : { connection: 'close' }),
    ...reply.headers,
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

const BYTES = 'application/octet-stream'

function encodeJson(body: object | undefined): Uint8Array | undefined {
  return body === undefined ? undefined : Buffer.from(JSON.stringify(body))
}

function toExchange(request: IncomingMessage): HttpExchange {
  const url = request.url ?? ''
  const mark = url.indexOf('?')
  const path = mark === -1 ? url : url.slice(0, mark)
  const headers: Record<string, string | undefined> = Object.create(null)
  for (const [name, value] of Object.entries(request.headers)) {
    headers[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return {
    method: request.method ?? '',
    segments: path.startsWith('/') ? path.slice(1).split('/') : [],
    query: new URLSearchParams(mark === -1 ? '' : url.slice(mark + 1)),
    headers,
    body: (maxBytes) => readBody(request, maxBytes),
  }
}

async function readBody(request: IncomingMessage, maxBytes: number): Promise<Uint8Array> {
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) throw tooLarge(maxBytes)
  const chunks: Uint8Array[] = []
  let length = 0
  return await new Promise((resolve, reject) => {
    const cut = (cause?: unknown): void =>
      reject(new MalformedError('ERR_BODY_CUT', 'the connection ended before the body was complete', { cause }))
    if (request.destroyed) return cut() // of what was, it tells nobody again
    request.on('data', (chunk: Uint8Array) => {
      length += chunk.byteLength
      if (length > maxBytes) {
        request.pause() // what is left of it is not read; the reply says that the connection ends
        reject(tooLarge(maxBytes))
      } else chunks.push(chunk)
    })
    request.on('end', () => resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)))
    request.on('error', cut)
    request.on('close', cut)
  })
}

function tooLarge(maxBytes: number): MalformedError {
  return new MalformedError('ERR_BODY_TOO_LARGE', `the body is larger than ${maxBytes} bytes`)
}

function addressOf(server: Server): AddressInfo {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new TypeError('not listening on TCP')
  return address
}

async function close(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const grace = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS)
  await closed
  clearTimeout(grace)
}
