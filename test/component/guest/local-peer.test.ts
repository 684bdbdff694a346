/** The loopback endpoint's server and its callers, as this machine's kernel tells them. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { type AddressInfo, createServer, connect as dial } from 'node:net'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { serveLocal } from '#guest/platform/node/local-server'
import type { LocalRequest } from '#guest/platform/platform'

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as AddressInfo
  probe.close()
  await once(probe, 'close')
  return port
}

async function serve(t: ExecutionContext, seen: LocalRequest[] = []): Promise<number> {
  const port = await freePort()
  const server = await serveLocal(port, async (call) => {
    seen.push(call)
    return { status: 200, contentType: 'text/plain', body: new TextEncoder().encode('answer') }
  })
  t.teardown(() => server.close())
  return port
}

test('whoever holds a connection is told by the kernel, over IPv4 and as a socket for both families', async (t) => {
  const probe = fileURLToPath(new URL('local-peer-probe.ts', import.meta.url))
  const { stdout } = await promisify(execFile)('unshare', ['--pid', '--fork', '--mount-proc', process.execPath, probe])
  const told = JSON.parse(stdout) as Record<string, unknown>
  for (const host of ['127.0.0.1', '::ffff:127.0.0.1']) {
    t.deepEqual(told[host], [told.own])
    t.deepEqual(told[`${host}, ended`], [], 'a connection that its process left behind is nobody’s')
  }
  t.deepEqual(told.both, [told.own, told.own], 'a connection that two processes hold is both of theirs')
})

test('the server answers one request on each connection, and says where it came from', async (t) => {
  const seen: LocalRequest[] = []
  const port = await serve(t, seen)
  const call = request({ host: '127.0.0.1', port, path: '/x?y=1', method: 'PUT' }).end()
  const from = new Promise((resolve) =>
    call.once('socket', (socket) => socket.once('connect', () => resolve(socket.localPort))),
  )
  const [response] = await once(call, 'response')
  t.is(response.headers.connection, 'close')
  response.resume()
  t.like(seen[0], { method: 'PUT', target: '/x?y=1', host: `127.0.0.1:${port}`, peerPort: (await from) as number })
})

test('the server ends connections that carry a body, or too much of a header', async (t) => {
  const seen: LocalRequest[] = []
  const port = await serve(t, seen)
  for (const text of [
    'GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello',
    'GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    `GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(9000)}\r\n\r\n`,
  ]) {
    const socket = dial(port, '127.0.0.1').on('error', () => undefined)
    socket.end(text)
    socket.resume()
    await once(socket, 'close')
  }
  t.deepEqual(seen, [])
})

test('a port that somebody has already is refused', async (t) => {
  const port = await serve(t)
  await t.throwsAsync(
    serveLocal(port, () => Promise.reject(new Error('never'))),
    { code: 'ERR_PORT_TAKEN' },
  )
})
