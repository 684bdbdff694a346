/** HTTP on the loopback interface alone. Loaded when a policy needs it. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { errorText, UnavailableError } from '#protocol/errors'
import type { LocalHandler, LocalResponse } from '../platform.ts'

const LOOPBACK = '127.0.0.1'
const MAX_HEADER_BYTES = 8192
const REQUEST_TIMEOUT_MS = 5_000
const MAX_CONNECTIONS = 64

/** Throws `UnavailableError` ERR_PORT_TAKEN. */
export async function serveLocal(port: number, handle: LocalHandler): Promise<{ close(): Promise<void> }> {
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
      keepAlive: false,
    },
    (request, response) => {
      void answer(request, response, handle)
    },
  )
  server.maxConnections = MAX_CONNECTIONS
  // One request on each connection: who asked is looked up once, and nobody else's request follows.
  server.maxRequestsPerSocket = 1
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(new UnavailableError('ERR_PORT_TAKEN', `port ${port}: ${errorText(cause)}`, { cause }))
    })
    server.listen({ host: LOOPBACK, port, exclusive: true }, resolve)
  })
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, handle: LocalHandler): Promise<void> {
  const { remoteAddress, remotePort } = request.socket
  response.on('error', () => request.destroy())
  const hasBody =
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0
  if (remoteAddress !== LOOPBACK || remotePort === undefined || hasBody) {
    request.destroy()
    return
  }
  try {
    const { method = '', url: target = '', headers } = request
    send(response, await handle({ method, target, host: headers.host ?? '', peerPort: remotePort }))
  } catch {
    request.destroy()
  }
}

function send(response: ServerResponse, { status, contentType, body }: LocalResponse): void {
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': body.byteLength,
    'cache-control': 'no-store',
    connection: 'close',
  })
  // It may have been a secret.
  response.end(body, () => body.fill(0))
}
