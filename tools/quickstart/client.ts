/** The tenant's HTTPS client: it accepts the one certificate whose key was released to the attested guest. */
import { X509Certificate } from 'node:crypto'
import { request } from 'node:https'
import { UnverifiedError } from '#protocol/errors'

export interface Page {
  readonly status: number
  readonly body: string
}

/** GET / through a forwarded port of the loopback interface. Throws `UnverifiedError` for any other certificate. */
export function fetchPinned(options: {
  readonly port: number
  readonly name: string
  readonly caPem: string
  readonly certificatePem: string
}): Promise<Page> {
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
