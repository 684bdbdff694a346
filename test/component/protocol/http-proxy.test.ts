/** An HTTP proxy on the way, as tunnels: https and http, with a password, and what it must not become. */
import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingMessage } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import type { HttpTransport } from '#protocol/http-transport'
import { UndiciTransport } from '#protocol/node/http'
import { isDirect } from '#protocol/node/http-proxy'

interface Scene {
  readonly caPem: string
  readonly httpsPort: number
  readonly httpPort: number
  readonly proxyPort: number
  /** "CONNECT host:port" or what else was asked. */
  readonly asked: string[]
  readonly transport: (proxy: { url: string; noProxy?: readonly string[] }) => HttpTransport
}

async function listening(server: ReturnType<typeof createHttpServer>, t: ExecutionContext): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const ca = createCa()
  const { certificatePem: cert, privateKeyPem: key } = issueServerCertificate({ ca, names: ['web.test'], ips: [] })
  const answer = (request: IncomingMessage, response: { end: (text: string) => void }): void =>
    response.end(`${request.headers.host} ${request.url} ${request.headers['proxy-authorization'] ?? '-'}`)
  const httpsPort = await listening(createHttpsServer({ cert, key }, answer) as never, t)
  const httpPort = await listening(createHttpServer(answer), t)
  const asked: string[] = []
  const proxy = createHttpServer((request, response) => {
    asked.push(`${request.method} ${request.url}`)
    response.writeHead(400).end()
  })
  proxy.on('connect', (request: IncomingMessage, client: Socket) => {
    asked.push(`CONNECT ${request.url}`)
    const [, port = ''] = (request.url ?? '').split(':')
    if (request.headers['proxy-authorization'] !== `Basic ${Buffer.from('joe:p@ss').toString('base64')}`) {
      client.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
      return
    }
    const server = connect(Number(port), '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n')
      server.pipe(client).pipe(server)
    })
    for (const socket of [server, client]) socket.on('error', () => socket.destroy())
  })
  const proxyPort = await listening(proxy, t)
  return {
    caPem: ca.certificatePem,
    httpsPort,
    httpPort,
    proxyPort,
    asked,
    transport: (options) => {
      const hosts = { 'web.test': '127.0.0.1', 'proxy.test': '127.0.0.1' }
      const transport = new UndiciTransport({ caPem: [ca.certificatePem], hosts, proxy: options })
      t.teardown(() => transport.close())
      return transport
    },
  }
}

async function get(transport: HttpTransport, url: string): Promise<string> {
  const { body } = await transport.request({ method: 'GET', url })
  const parts: Uint8Array[] = []
  for await (const chunk of body) parts.push(chunk)
  return Buffer.concat(parts).toString()
}

test('https and http go through the proxy’s tunnel, which gets the password that the server does not', async (t) => {
  const { transport, httpsPort, httpPort, proxyPort, asked } = await scene(t)
  const through = transport({ url: `http://joe:p%40ss@proxy.test:${proxyPort}` })
  t.is(await get(through, `https://web.test:${httpsPort}/a`), `web.test:${httpsPort} /a -`)
  t.is(await get(through, `http://web.test:${httpPort}/b`), `web.test:${httpPort} /b -`)
  t.deepEqual(asked, [`CONNECT web.test:${httpsPort}`, `CONNECT web.test:${httpPort}`])
})

test('the server’s certificate is checked through the tunnel, and hosts without proxy are reached directly', async (t) => {
  const { transport, httpsPort, proxyPort, asked } = await scene(t)
  const url = `http://joe:p%40ss@proxy.test:${proxyPort}`
  const wrongName = get(transport({ url }), `https://proxy.test:${httpsPort}/`)
  await t.throwsAsync(wrongName, { code: 'ERR_HTTP_TLS' })
  asked.length = 0
  t.regex(await get(transport({ url, noProxy: ['.test'] }), `https://web.test:${httpsPort}/c`), / \/c -$/)
  t.deepEqual(asked, [])
})

test('a proxy that refuses, is not there or is no proxy is told apart from the server', async (t) => {
  const { transport, httpsPort, httpPort, proxyPort } = await scene(t)
  const target = `https://web.test:${httpsPort}/`
  const refused = await t.throwsAsync(get(transport({ url: `http://joe:no@proxy.test:${proxyPort}` }), target), {
    code: 'ERR_HTTP_PROXY',
    message: /answers 407/,
  })
  t.false(refused?.message.includes('joe'))
  await t.throwsAsync(get(transport({ url: 'http://proxy.test:1' }), target), { code: 'ERR_HTTP_CONNECT' })
  // Node's plain server closes on CONNECT.
  await t.throwsAsync(get(transport({ url: `http://proxy.test:${httpPort}` }), target), { code: 'ERR_HTTP_PROXY' })
  t.throws(() => transport({ url: 'socks://proxy.test' }), { code: 'ERR_HTTP_URL' })
})

test('which hosts need no proxy', (t) => {
  for (const [host, list, direct] of [
    ['a.example', ['a.example'], true],
    ['b.a.example', ['a.example'], false],
    ['b.a.example', ['.a.example'], true],
    ['a.example', ['.a.example'], true],
    ['xa.example', ['.a.example'], false],
    ['A.Example', ['a.example'], true],
    ['any', ['*'], true],
    ['any', [''], false],
    ['10.0.0.1', ['10.0.0.1'], true],
  ] as const) {
    t.is(isDirect(host, list), direct, `${host} ${list.join()}`)
  }
})
