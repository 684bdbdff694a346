/** The tenant's HTTPS client: it accepts the one certificate whose key was released to the attested guest. */
import { X509Certificate } from 'node:crypto'
import { request } from 'node:https'
import { UnverifiedError } from '#protocol/errors'

export interface Page {
  readonly status: number
  readonly body: string
}

export interface PinnedServer {
  readonly port: number
  readonly name: string
  readonly caPem: string
  readonly certificatePem: string
}

const PATIENCE_MS = 60_000
const RETRY_MS = 250
/** A server that does not listen yet: the forwarded connection is closed before TLS begins. */
const NOT_YET: ReadonlySet<string> = new Set(['ECONNRESET', 'ECONNREFUSED', 'EPIPE'])

/** `fetchPinned`, from the moment on that the server listens. */
export async function fetchWhenServed(server: PinnedServer): Promise<Page> {
  for (const deadline = Date.now() + PATIENCE_MS; ; ) {
    try {
      return await fetchPinned(server)
    } catch (error) {
      if (!NOT_YET.has((error as NodeJS.ErrnoException).code ?? '') || Date.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
    }
  }
}

/** GET / through a forwarded port of the loopback interface. Throws `UnverifiedError` for any other certificate. */
export function fetchPinned(options: PinnedServer): Promise<Page> {
  const pinned = new X509Certificate(options.certificatePem).fingerprint256
  return new Promise((resolve, reject) => {
    const call = request(
      {
        host: '127.0.0.1',
        port: options.port,
        path: '/',
        servername: options.name,
        headers: { host: options.name },
        ca: options.caPem,
        agent: false,
        checkServerIdentity: (_host, certificate) =>
          certificate.fingerprint256 === pinned
            ? undefined
            : new UnverifiedError(
                'ERR_PINNED_CERTIFICATE',
                'the server presents another certificate than the pinned one',
              ),
      },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.once('error', reject)
        response.once('end', () =>
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') }),
        )
      },
    )
    call.once('error', reject)
    call.end()
  })
}
