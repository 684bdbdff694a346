import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { type HttpExchange, type HttpReply, type ListenOptions, listen } from '#attestation/verifier/http-listener'
import { createCa, issueServerCertificate } from '#attestation/verifier/tls'
import { UndiciTransport } from '#protocol/node/http'

async function serve(
  t: ExecutionContext,
  answer: (exchange: HttpExchange) => Promise<HttpReply>,
  options: Partial<ListenOptions> = {},
) {
  const listener = await listen({ host: '127.0.0.1', port: 0, tls: undefined, answer, ...options })
  t.teardown(() => listener.close())
  return { ...listener, port: Number(new URL(listener.url).port) }
}

/** Everything the server sends until it closes the connection. */
function received(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(text))
  })
}

test('plain HTTP is refused on addresses that others can reach', async (t) => {
  for (const host of ['0.0.0.0', '::', '192.0.2.1']) {
    const options = { host, port: 0, tls: undefined, answer: async () => ({ status: 200 }) }
    await t.throwsAsync(listen(options), { code: 'ERR_TLS_REQUIRED' })
  }
})

test('a port that is taken is reported', async (t) => {
  const { port } = await serve(t, async () => ({ status: 200 }))
  const options = { host: '127.0.0.1', port, tls: undefined, answer: async () => ({ status: 200 }) }
  await t.throwsAsync(listen(options), { code: 'ERR_LISTEN' })
})

test('a path is handed on as it was sent: nothing is decoded, nothing is normalised', async (t) => {
  const { port } = await serve(t, async ({ segments }) => ({ status: 200, body: { segments } }))
  const paths = ['/kbs/v0/../../healthz', '/a//b', '/a/%2e%2e/b', '/a;b/c?d=/e', '//evil.test/x', '*']
  const expected = [
    ['kbs', 'v0', '..', '..', 'healthz'],
    ['a', '', 'b'],
    ['a', '%2e%2e', 'b'],
    ['a;b', 'c'],
    ['', 'evil.test', 'x'],
    [],
  ]
  for (const [index, path] of paths.entries()) {
    const socket = connect(port, '127.0.0.1')
    const method = path === '*' ? 'OPTIONS' : 'GET'
    socket.write(`${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
    t.true((await received(socket)).endsWith(JSON.stringify({ segments: expected[index] })), path)
  }
})

test('the body of a client that is gone is refused, also when nobody asked for it while the client was there', async (t) => {
  const arrived = Promise.withResolvers<void>()
  const gone = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<unknown>()
  const { port } = await serve(t, async (exchange) => {
    arrived.resolve()
    await gone.promise
    await sleep(50) // the server sees the end a little later than its client; if later still, it says the same
    await exchange.body(1000).then(asked.resolve, asked.resolve)
    return { status: 200 }
  })
  const socket = connect(port, '127.0.0.1')
  socket.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx')
  await arrived.promise
  socket.destroy()
  await once(socket, 'close')
  gone.resolve()
  const error = await asked.promise
  t.is(error instanceof Error && 'code' in error ? error.code : error, 'ERR_BODY_CUT')
})

test('a body larger than its limit is refused, whether it says so or not', async (t) => {
  const { port } = await serve(t, async (exchange) => {
    try {
      return { status: 200, body: { length: (await exchange.body(1000)).byteLength } }
    } catch (error) {
      return { status: 413, body: { code: error instanceof Error && 'code' in error ? error.code : '' } }
    }
  })
  const heads = ['Content-Length: 1001\r\n\r\n', 'Transfer-Encoding: chunked\r\n\r\n3e9\r\n']
  for (const head of heads) {
    const socket = connect(port, '127.0.0.1')
    socket.write(`POST / HTTP/1.1\r\nHost: x\r\n${head}${'x'.repeat(1001)}`)
    const reply = await received(socket)
    t.true(reply.startsWith('HTTP/1.1 413'), head)
    t.regex(reply, /ERR_BODY_TOO_LARGE/)
    t.regex(reply, /connection: close/i)
  }
})

test('a request that trickles in is ended, and others are served meanwhile', async (t) => {
  // Long beside what a busy machine needs for a whole request, which must not count as trickling.
  const options = { requestTimeoutMs: 5000 }
  const { url, port } = await serve(t, async (exchange) => ({ status: 200, body: await exchange.body(100) }), options)
  const slowHead = connect(port, '127.0.0.1')
  slowHead.write('POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ')
  const slowBody = connect(port, '127.0.0.1')
  slowBody.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n0123')
  const slow = Promise.all([received(slowHead), received(slowBody)])
  await Promise.all([once(slowHead, 'connect'), once(slowBody, 'connect')])
  t.is((await fetch(url)).status, 200)
  const [head, body] = await slow
  t.true(head.startsWith('HTTP/1.1 408'))
  t.true(body === '' || body.startsWith('HTTP/1.1 408'))
})

test('a connection that a client may still think open is open', async (t) => {
  const { port } = await serve(t, async () => ({ status: 200, body: {} }))
  const socket = connect(port, '127.0.0.1')
  const reply = async (): Promise<string> => {
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    const [chunk]: Buffer[] = await once(socket, 'data')
    return String(chunk)
  }
  const announcedS = Number(/keep-alive: timeout=(\d+)/i.exec(await reply())?.[1])
  t.true(announcedS > 0)
  await sleep(announcedS * 1000 + 2500) // a client whose clock runs late, or whose request took long on its way
  t.true((await reply()).startsWith('HTTP/1.1 200'))
  socket.destroy()
})

test('two requests in one, in the manner of request smuggling, are refused', async (t) => {
  const seen: string[] = []
  const { port } = await serve(t, async ({ segments }) => {
    seen.push(segments.join('/'))
    return { status: 200 }
  })
  const socket = connect(port, '127.0.0.1')
  socket.write(
    'POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n',
  )
  t.true((await received(socket)).startsWith('HTTP/1.1 400'))
  t.false(seen.includes('smuggled'))
})

test('what the answer throws becomes an empty 500', async (t) => {
  const { url } = await serve(t, async () => {
    throw new Error('secret detail')
  })
  const reply = await fetch(url)
  t.is(reply.status, 500)
  t.is(await reply.text(), '')
})

test('with a certificate only TLS is spoken, 1.2 at least, and a client checks the name', async (t) => {
  const ca = createCa()
  const tls = issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1'] })
  const { url, port } = await serve(t, async () => ({ status: 200, body: { ok: true } }), { tls })
  const hosts = { 'verifier.test': '127.0.0.1', 'other.test': '127.0.0.1' }
  const http = new UndiciTransport({ caPem: [ca.certificatePem], hosts })
  const strangers = new UndiciTransport({ caPem: [createCa().certificatePem] })
  t.teardown(() => Promise.all([http.close(), strangers.close()]))
  t.is((await http.request({ method: 'GET', url })).status, 200)
  t.is((await http.request({ method: 'GET', url: `https://verifier.test:${port}/` })).status, 200)
  await t.throwsAsync(http.request({ method: 'GET', url: `https://other.test:${port}/` }), { code: 'ERR_HTTP_TLS' })
  await t.throwsAsync(strangers.request({ method: 'GET', url }), { code: 'ERR_HTTP_TLS' })

  const old = connectTls({ host: '127.0.0.1', port, ca: ca.certificatePem, maxVersion: 'TLSv1.1', minVersion: 'TLSv1' })
  await t.throwsAsync(new Promise((resolve, reject) => old.on('secureConnect', resolve).on('error', reject)))
  const plain = connect(port, '127.0.0.1')
  plain.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  t.false((await received(plain)).includes('200'))
})

test('a TLS profile decides which versions and ciphers are spoken', async (t) => {
  const ca = createCa()
  const tls = issueServerCertificate({ ca, names: ['verifier.test'], ips: ['127.0.0.1'] })
  const answer = async () => ({ status: 200 })
  const modern = await serve(t, answer, { tls, tlsProfile: 'modern' })
  const intermediate = await serve(t, answer, { tls, tlsProfile: 'intermediate' })
  const spoken = async (port: number, client: object): Promise<string> => {
    const socket = connectTls({ host: '127.0.0.1', port, ca: ca.certificatePem, ...client })
    try {
      await once(socket, 'secureConnect')
      return `${socket.getProtocol()} ${socket.getCipher().name}`
    } catch {
      return 'refused'
    } finally {
      socket.destroy()
    }
  }
  const old = { maxVersion: 'TLSv1.2' }
  const gcm = 'ECDHE-ECDSA-AES256-GCM-SHA384'
  const cbc = 'ECDHE-ECDSA-AES256-SHA384'
  t.regex(await spoken(modern.port, {}), /^TLSv1\.3 TLS_/)
  t.is(await spoken(modern.port, old), 'refused')
  t.regex(await spoken(intermediate.port, {}), /^TLSv1\.3 TLS_/)
  t.is(await spoken(intermediate.port, { ...old, ciphers: gcm }), `TLSv1.2 ${gcm}`)
  t.is(await spoken(intermediate.port, { ...old, ciphers: cbc }), 'refused')
})

test('more connections than are allowed are closed, and there is room again when one ends', async (t) => {
  const { url, port } = await serve(t, async () => ({ status: 200 }), { maxConnections: 2 })
  const held = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')]
  for (const socket of held) {
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    await once(socket, 'data')
  }
  await t.throwsAsync(fetch(url))
  for (const socket of held) socket.end()
  await Promise.all(held.map((socket) => once(socket, 'close')))
  let status: number | undefined
  while (status === undefined) {
    status = await fetch(url).then(
      (reply) => reply.status,
      () => undefined, // the server has not heard yet that they are gone
    )
  }
  t.is(status, 200)
})

test('closing lets a running request end and takes no new one', async (t) => {
  const started = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  const listener = await listen({
    host: '127.0.0.1',
    port: 0,
    tls: undefined,
    answer: async () => {
      started.resolve()
      await release.promise
      return { status: 200, body: { done: true } }
    },
  })
  const running = fetch(listener.url)
  await started.promise
  const closed = listener.close()
  await t.throwsAsync(fetch(listener.url))
  release.resolve()
  t.is((await running).status, 200)
  await closed
})
