import { once } from 'node:events'
import { createServer as createPlainServer, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { UnavailableError } from '#protocol/errors'
import { type HttpRequest, pour } from '#protocol/http-transport'
import { UndiciTransport, type UndiciTransportOptions } from '#protocol/node/http'

const CA = createCa()
const STRANGER = createCa()

async function serve(
  t: ExecutionContext,
  listener: RequestListener,
  tls?: { names: readonly string[]; ca?: typeof CA; maxVersion?: 'TLSv1.1' | 'TLSv1.2' },
): Promise<number> {
  const server = tls === undefined ? createPlainServer(listener) : secureServer(listener, tls)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function secureServer(
  listener: RequestListener,
  {
    names,
    ca = CA,
    maxVersion = 'TLSv1.2',
  }: { names: readonly string[]; ca?: typeof CA; maxVersion?: 'TLSv1.1' | 'TLSv1.2' },
) {
  const { certificatePem: cert, privateKeyPem: key } = issueServerCertificate({ ca, names })
  const old = maxVersion === 'TLSv1.1' ? { minVersion: maxVersion, maxVersion, ciphers: 'ALL:@SECLEVEL=0' } : {}
  return createTlsServer({ cert, key, ...old }, listener)
}

function transport(t: ExecutionContext, options: Partial<UndiciTransportOptions> = {}): UndiciTransport {
  const http = new UndiciTransport({ caPem: [CA.certificatePem], hosts: { 'server.test': '127.0.0.1' }, ...options })
  t.teardown(() => http.close())
  return http
}

async function text(http: UndiciTransport, request: Partial<HttpRequest> & { url: string }): Promise<string> {
  const response = await http.request({ method: 'GET', ...request })
  let body = ''
  for await (const chunk of response.body) body += new TextDecoder().decode(chunk)
  return `${response.status} ${body}`
}

const hello: RequestListener = (request, response) => response.end(`hello ${request.headers.host}`)

test('a mapped name connects to its address while TLS checks the name', async (t) => {
  const port = await serve(t, hello, { names: ['server.test'] })
  t.is(await text(transport(t), { url: `https://server.test:${port}/` }), `200 hello server.test:${port}`)
})

test('a certificate of another authority, for another name, or without any trusted authority is refused', async (t) => {
  const failed = { code: 'ERR_HTTP_TLS' }
  const stranger = await serve(t, hello, { names: ['server.test'], ca: STRANGER })
  await t.throwsAsync(text(transport(t), { url: `https://server.test:${stranger}/` }), failed)
  const misnamed = await serve(t, hello, { names: ['other.test'] })
  await t.throwsAsync(text(transport(t), { url: `https://server.test:${misnamed}/` }), failed)
  const right = await serve(t, hello, { names: ['server.test'] })
  await t.throwsAsync(text(transport(t, { caPem: [] }), { url: `https://server.test:${right}/` }), failed)
})

test('a certificate that is not valid yet, or no more, is refused, and the message says that it is about dates', async (t) => {
  // What a guest whose clock says 1970 or 2099 makes of a certificate of today, with the clocks exchanged.
  for (const [year, said] of [
    [2049, /CERT_NOT_YET_VALID/],
    [1971, /CERT_HAS_EXPIRED/],
  ] as const) {
    const dated = issueServerCertificate({ ca: CA, names: ['server.test'], now: new Date(Date.UTC(year, 5)) })
    const port = await serveWith(t, { cert: dated.certificatePem, key: dated.privateKeyPem })
    const error = await t.throwsAsync<UnavailableError>(text(transport(t), { url: `https://server.test:${port}/` }), {
      code: 'ERR_HTTP_TLS',
    })
    t.regex(error?.message ?? '', said)
    t.regex(error?.hint ?? '', /dates/)
  }
})

async function serveWith(t: ExecutionContext, tls: { cert: string; key: string }): Promise<number> {
  const server = createTlsServer(tls, hello)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}

test('TLS below 1.2 is refused', async (t) => {
  const port = await serve(t, hello, { names: ['server.test'], maxVersion: 'TLSv1.1' })
  await t.throwsAsync(text(transport(t), { url: `https://server.test:${port}/` }), { code: 'ERR_HTTP_TLS' })
})

test('redirects are answers, repeated headers are joined', async (t) => {
  const port = await serve(t, (_, response) => {
    response.writeHead(307, { location: '/elsewhere', 'x-list': ['1', '2'], 'set-cookie': ['a', 'b'] }).end()
  })
  const response = await transport(t).request({ method: 'GET', url: `http://server.test:${port}/` })
  t.is(response.status, 307)
  t.is(response.headers.location, '/elsewhere')
  t.is(response.headers['x-list'], '1, 2')
  t.is(response.headers['set-cookie'], 'a')
})

test('bodies are sent whole and as streams', async (t) => {
  const port = await serve(t, (request, response) => {
    let length = 0
    request.on('data', (chunk: Buffer) => (length += chunk.byteLength))
    request.on('end', () => response.end(`${length}`))
  })
  const url = `http://server.test:${port}/`
  const http = transport(t)
  t.is(await text(http, { method: 'PUT', url, body: new Uint8Array(100_000) }), '200 100000')
  async function* parts(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(70_000)
    yield new Uint8Array(1)
  }
  t.is(await text(http, { method: 'PUT', url, body: parts() }), '200 70001')
})

test('silence, an early end, and nobody listening are told apart', async (t) => {
  const port = await serve(t, (request, response) => {
    if (request.url === '/silent') return
    response.writeHead(200, { 'content-length': '100' }).write('some')
    if (request.url === '/cut') setImmediate(() => response.destroy())
  })
  const http = transport(t)
  const url = `http://server.test:${port}`
  await t.throwsAsync(text(http, { url: `${url}/silent`, idleTimeoutMs: 300 }), { code: 'ERR_HTTP_STALLED' })
  await t.throwsAsync(text(http, { url: `${url}/stall`, idleTimeoutMs: 300 }), { code: 'ERR_HTTP_STALLED' })
  await t.throwsAsync(text(http, { url: `${url}/cut` }), { code: 'ERR_HTTP_CUT' })
  await t.throwsAsync(text(http, { url: 'http://server.test:1/' }), { code: 'ERR_HTTP_CONNECT' })
  await t.throwsAsync(text(http, { url: 'ftp://server.test/' }), { code: 'ERR_HTTP_URL' })
})

test('more header bytes than allowed end the request', async (t) => {
  const port = await serve(t, (_, response) => response.setHeader('x', 'y'.repeat(5000)).end())
  const http = transport(t, { maxHeaderBytes: 2000 })
  await t.throwsAsync(text(http, { url: `http://server.test:${port}/` }), { code: 'ERR_HTTP_PROTOCOL' })
})

test('an aborted request ends with its own reason, before and within the answer', async (t) => {
  const port = await serve(t, (_, response) => response.writeHead(200).write('part'))
  const http = transport(t)
  const url = `http://server.test:${port}/`
  const reason = new Error('enough')
  t.is(await t.throwsAsync(text(http, { url, signal: AbortSignal.abort(reason) })), reason)
  const abort = new AbortController()
  const response = await http.request({ method: 'GET', url, signal: abort.signal })
  const reading = (async () => {
    for await (const _ of response.body) abort.abort(reason)
  })()
  t.is(await t.throwsAsync(reading), reason)
})

test('a body that is not wanted frees its connection', async (t) => {
  let open = 0
  const port = await serve(t, (request, response) => {
    open++
    request.socket.once('close', () => open--)
    response.writeHead(200, { 'content-length': '1000000' }).write('part')
  })
  const http = transport(t, { maxConnections: 1 })
  for (let round = 0; round < 3; round++) {
    // With one connection, a leak would make the next request wait for ever.
    const response = await http.request({ method: 'GET', url: `http://server.test:${port}/` })
    await response.body[Symbol.asyncIterator]().return?.()
  }
  t.true(open <= 1)
})

test('a body is poured whole and in order, however slow the reader, and the connection waits meanwhile', async (t) => {
  const SIZE = 24 * 1024 * 1024
  let sent = 0
  const port = await serve(t, (_, response) => {
    response.writeHead(200, { 'content-length': SIZE })
    const write = (): void => {
      while (sent < SIZE) {
        const chunk = Buffer.alloc(65_536, sent / 65_536)
        sent += chunk.byteLength
        if (!response.write(chunk)) {
          response.once('drain', write)
          return
        }
      }
      response.end()
    }
    write()
  })
  const { body } = await transport(t).request({ method: 'GET', url: `http://server.test:${port}/` })
  let got = 0
  let ahead = 0
  let running = 0
  await pour(body, (chunk) => {
    t.is(++running, 1, 'one chunk at a time')
    for (const at of [0, chunk.byteLength - 1]) t.is(chunk[at], Math.floor((got + at) / 65_536) & 0xff)
    got += chunk.byteLength
    ahead = Math.max(ahead, sent - got)
    // Every now and then the disk is slow.
    if (got % 7 !== 0) {
      running--
      return undefined
    }
    return new Promise((resolve) =>
      setImmediate(() => {
        running--
        resolve()
      }),
    )
  })
  t.is(got, SIZE)
  t.true(ahead < SIZE / 2, `${ahead} bytes were sent ahead`)
})

test('a body that breaks, and a reader that fails, end the pouring with their own errors', async (t) => {
  const port = await serve(t, (request, response) => {
    response.writeHead(200, { 'content-length': '1000000' }).write('part')
    if (request.url === '/cut') setTimeout(() => response.destroy(), 20)
  })
  const http = transport(t, { maxConnections: 1 })
  const get = (path: string) => http.request({ method: 'GET', url: `http://server.test:${port}${path}` })
  await t.throwsAsync(
    pour((await get('/cut')).body, () => undefined),
    { code: 'ERR_HTTP_CUT' },
  )
  const refused = new UnavailableError('ERR_REGISTRY_SLOW', 'too slow')
  for (const sink of [() => Promise.reject(refused), () => raise(refused)]) {
    t.is(await t.throwsAsync(pour((await get('/')).body, sink)), refused)
  }
})

test('a body that breaks while its reader is busy is over when the reader is, and has given all that came', async (t) => {
  let answer: ServerResponse | undefined
  const port = await serve(t, (_, response) => {
    answer = response.writeHead(200, { 'content-length': '1000000' })
    answer.flushHeaders()
  })
  const http = transport(t, { maxConnections: 1 })
  const { body } = await http.request({ method: 'GET', url: `http://server.test:${port}/` })
  let got = ''
  let isOver = false
  const pouring = pour(body, async (chunk) => {
    got += Buffer.from(chunk).toString()
    if (got === 'some') answer?.write(' more', () => answer?.socket?.resetAndDestroy())
    // Long enough for this side to see that the connection is gone.
    await new Promise((resolve) => setTimeout(resolve, 100))
    t.false(isOver)
    got += '.'
  }).finally(() => {
    isOver = true
  })
  answer?.write('some')
  await t.throwsAsync(pouring, { code: 'ERR_HTTP_CUT' })
  t.true(got === 'some.' || got === 'some. more.', got)
})

test('an answer that ends before its length is a connection that was cut', async (t) => {
  const port = await serve(t, (_, response) => {
    response.writeHead(200, { 'content-length': '1000000', connection: 'close' })
    response.write('part', () => response.socket?.end())
  })
  const { body } = await transport(t).request({ method: 'GET', url: `http://server.test:${port}/` })
  await t.throwsAsync(
    pour(body, () => undefined),
    { code: 'ERR_HTTP_CUT' },
  )
})

function raise(error: Error): never {
  throw error
}
