/** Debian's docker-registry over TLS, as the tenant would run it. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { Children, Started } from './processes.ts'

export interface RegistryOptions {
  readonly directory: string
  readonly certificatePath: string
  readonly keyPath: string
}

export interface RunningRegistry {
  readonly port: number
  readonly process: Started
}

/** Starts it on a free port of the loopback interface; resolves when it listens. */
export async function startRegistry(children: Children, options: RegistryOptions): Promise<RunningRegistry> {
  const port = await freePort()
  const storage = `${options.directory}/storage`
  mkdirSync(storage, { recursive: true })
  const config = {
    version: 0.1,
    log: { level: 'info', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: storage }, delete: { enabled: true } },
    http: { addr: `127.0.0.1:${port}`, tls: { certificate: options.certificatePath, key: options.keyPath } },
  }
  // JSON is YAML, which is what the registry reads.
  writeFileSync(`${options.directory}/config.yml`, JSON.stringify(config))
  const process = children.start(
    '/usr/bin/docker-registry',
    ['serve', `${options.directory}/config.yml`],
    `${options.directory}/registry.log`,
  )
  await process.waitFor((line) => (line.includes('listening on') ? true : undefined))
  return { port, process }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() =>
        typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no port')),
      )
    })
  })
}
