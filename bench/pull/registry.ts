/** docker-registry over TLS on the loopback interface, and images pushed to it by skopeo. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'

/** In its certificate, for guests, which reach it under another address. */
export const GUEST_NAME = 'registry.test'

export interface BenchRegistry extends AsyncDisposable {
  /** "127.0.0.1:41234" */
  readonly host: string
  readonly caFile: string
  /** Folder with the CA as containers/image wants it. */
  readonly certificates: string
}

export async function benchRegistry(folder: string): Promise<BenchRegistry> {
  const certificates = join(folder, 'certificates')
  mkdirSync(certificates, { recursive: true })
  const ca = createCa()
  const server = issueServerCertificate({ ca, names: ['localhost', GUEST_NAME], ips: ['127.0.0.1'] })
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  const caFile = write('certificates/ca.crt', ca.certificatePem)
  const tls = {
    certificate: write('server.pem', server.certificatePem),
    key: write('server.key', server.privateKeyPem),
  }
  const port = await freePort()
  const config = {
    version: 0.1,
    log: { level: 'info' },
    storage: { filesystem: { rootdirectory: join(folder, 'storage') } },
    http: { addr: `127.0.0.1:${port}`, secret: 'bench', tls },
  }
  // A file, not a pipe: while this process waits for a program, nobody would empty a pipe.
  const log = write('registry.log', '')
  const child = spawn('docker-registry', ['serve', write('config.yml', JSON.stringify(config))], {
    stdio: ['ignore', 'ignore', openSync(log, 'a')],
  })
  while (!readFileSync(log, 'utf8').includes('listening on')) {
    if (child.exitCode !== null) throw new Error(`docker-registry ended: ${readFileSync(log, 'utf8')}`)
    await new Promise((tick) => setTimeout(tick, 20))
  }
  return {
    host: `127.0.0.1:${port}`,
    caFile,
    certificates,
    [Symbol.asyncDispose]: async () => {
      const exited = once(child, 'exit')
      child.kill('SIGKILL')
      await exited
    },
  }
}

export function push(registry: BenchRegistry, layout: string, name: string): void {
  const target = `docker://${registry.host}/${name}`
  execFileSync('skopeo', [
    'copy',
    '-q',
    '--preserve-digests',
    '--dest-cert-dir',
    registry.certificates,
    `oci:${layout}`,
    target,
  ])
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (typeof address !== 'object' || address === null) throw new Error('no port')
  return address.port
}
