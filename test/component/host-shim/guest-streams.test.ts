/** Streams, port forwards and refusals against a fake guest behind a real Unix socket. */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { PassThrough, type Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import test, { type ExecutionContext } from 'ava'
import { AgentClient } from '#host-shim/pod/agent-client'
import { attachStdio, forwardPort, type GuestAccess, openGuestStream } from '#host-shim/pod/guest-streams'
import { connectVsock, redeemTicket } from '#host-shim/pod/vsock'
import { refusalError } from '#protocol/agent-service'
import { StreamKind } from '#protocol/gen/agent_pb'
import { startFakeGuest } from '#test/fixtures/fake-guest'

async function access(t: ExecutionContext, options: Parameters<typeof startFakeGuest>[1]): Promise<GuestAccess> {
  const { vsock } = await startFakeGuest(t, options)
  const agent = await AgentClient.connect(vsock)
  t.teardown(() => agent.close())
  return { agent, vsock }
}

function dial(t: ExecutionContext, forward: { host: string; port: number }): Socket {
  const socket = connect({ host: forward.host, port: forward.port, allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  return socket
}

const deny = async () => {
  throw refusalError('permissionDenied', { code: 'ERR_POLICY_DENIED', correlationId: '0123456789abcdef' })
}

test('bytes that come together with the handshake belong to the stream', async (t) => {
  const { vsock } = await startFakeGuest(t, {
    onConnect: (socket) => socket.end('OK 1\nhello') !== undefined,
  })
  t.is(await text(await connectVsock(vsock, 1025)), 'hello')
})

test('a guest that closes, answers nonsense, or says nothing is told apart from one that answers', async (t) => {
  const guest = await startFakeGuest(t, {
    onConnect: (socket, port) => {
      if (port === 1) socket.destroy()
      if (port === 2) socket.write('NO\n')
      if (port === 3) socket.write('x'.repeat(100))
      return true
    },
  })
  for (const port of [1, 2, 3]) await t.throwsAsync(connectVsock(guest.vsock, port), { code: 'ERR_VSOCK_CONNECT' })
  await t.throwsAsync(connectVsock(guest.vsock, 4, { timeoutMs: 30 }), { code: 'ERR_VSOCK_TIMEOUT' })
  await t.throwsAsync(connectVsock(`${guest.vsock}-absent`, 4), { code: 'ERR_VSOCK_CONNECT' })
})

test('a ticket that the guest does not know opens nothing', async (t) => {
  const { vsock } = await startFakeGuest(t, { onStream: (socket) => socket.end() })
  await t.throwsAsync(redeemTicket(vsock, 'f'.repeat(32)), { code: 'ERR_VSOCK_CONNECT' })
})

test('a refusal of the guest arrives as its code and the id under which the tenant finds the reason', async (t) => {
  const guest = await access(t, { agent: { execProcess: deny, openStream: deny } })
  await t.throwsAsync(guest.agent.exec({ containerId: 'c' }), { code: 'ERR_POLICY_DENIED' })
  const error = await t.throwsAsync(openGuestStream(guest, { kind: StreamKind.LOGS }), { code: 'ERR_POLICY_DENIED' })
  t.like(error, { correlationId: '0123456789abcdef', kind: 'denied' })
})

test('a guest that does not know a method fails the call, not as a refusal', async (t) => {
  const guest = await access(t, {})
  await t.throwsAsync(guest.agent.getStats('c'), { code: 'ERR_RPC_STATUS' })
})

test('stdio of a process: output to its ends, input with its end', async (t) => {
  const stdin = Promise.withResolvers<string>()
  const guest = await access(t, {
    onStream: (socket, { kind }) => {
      if (kind === StreamKind.STDOUT) socket.end('out')
      else if (kind === StreamKind.STDERR) socket.end('err')
      else stdin.resolve(text(socket))
    },
  })
  const [input, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()]
  const attached = await attachStdio(guest, { containerId: 'c' }, { stdin: input, stdout, stderr })
  input.end('typed')
  await attached.drained
  t.is(await stdin.promise, 'typed')
  t.false(stdout.writableEnded)
  t.is(String(stdout.read()), 'out')
  t.is(String(stderr.read()), 'err')
  attached.close()
})

test('a terminal is one stream in both directions', async (t) => {
  const guest = await access(t, {
    onStream: (socket, { kind }) => {
      t.is(kind, StreamKind.TERMINAL)
      socket.once('data', (typed: Uint8Array) => socket.end(`echo ${Buffer.from(typed).toString()}`))
    },
  })
  const [stdin, stdout] = [new PassThrough(), new PassThrough()]
  const attached = await attachStdio(guest, { containerId: 'c' }, { stdin, stdout, terminal: true })
  stdin.write('ls')
  await attached.drained
  t.is(String(stdout.read()), 'echo ls')
  attached.close()
})

test('output that policy keeps inside refuses the attachment and leaves no stream open', async (t) => {
  const guest = await startFakeGuest(t, { agent: { openStream: deny } })
  const agent = await AgentClient.connect(guest.vsock)
  t.teardown(() => agent.close())
  const attach = attachStdio({ agent, vsock: guest.vsock }, { containerId: 'c' }, { stdout: new PassThrough() })
  await t.throwsAsync(attach, { code: 'ERR_POLICY_DENIED' })
  t.is(guest.connections.size, 1)
})

test('a forwarded port carries 8 MiB each way, unchanged', async (t) => {
  const guest = await access(t, { onStream: (socket) => socket.pipe(socket) })
  await using forward = await forwardPort(guest, { listen: '127.0.0.1:0', port: 80 })
  const socket = dial(t, forward)
  const sent = randomBytes(8 * 1024 * 1024)
  const received = buffer(socket)
  socket.end(sent)
  t.is(sha256(await received), sha256(sent))
})

test('a client that ends its side still gets the answer', async (t) => {
  const guest = await access(t, {
    onStream: (socket, { port }) => {
      void text(socket).then((request) => socket.end(`${port} got ${request}`))
    },
  })
  await using forward = await forwardPort(guest, { listen: '127.0.0.1:0', port: 443 })
  const socket = dial(t, forward)
  socket.end('request')
  t.is(await text(socket), '443 got request')
})

test('a guest that ends its side still gets what the client sends', async (t) => {
  const got = Promise.withResolvers<string>()
  const guest = await access(t, {
    onStream: (socket) => {
      socket.end('bye')
      got.resolve(text(socket))
    },
  })
  await using forward = await forwardPort(guest, { listen: '127.0.0.1:0', port: 1 })
  const socket = dial(t, forward)
  t.is(await text(socket), 'bye')
  socket.end('late')
  t.is(await got.promise, 'late')
})

test('a slow reader holds up its own connection only, and little is kept for it', async (t) => {
  const sources: Readable[] = []
  const guest = await access(t, {
    onStream: (socket, { port }) => {
      if (port !== 7) return
      const source = new PassThrough({ highWaterMark: 1024 })
      sources.push(source)
      source.pipe(socket)
      const chunk = new Uint8Array(64 * 1024)
      const pump = () => {
        while (source.write(chunk));
      }
      source.on('drain', pump)
      pump()
    },
  })
  await using forward = await forwardPort(guest, { listen: '127.0.0.1:0', port: 7 })
  const slow = dial(t, forward).pause()
  const fast = dial(t, forward)
  let received = 0
  fast.on('data', (chunk: Uint8Array) => {
    received += chunk.byteLength
  })
  while (received < 32 * 1024 * 1024) await once(fast, 'data')
  t.true(slow.readableLength < 1024 * 1024)
  fast.destroy()
  slow.destroy()
})

test('a refused port resets the client and is reported', async (t) => {
  const guest = await access(t, { agent: { openStream: deny } })
  const reported = Promise.withResolvers<unknown>()
  await using forward = await forwardPort(guest, { listen: '127.0.0.1:0', port: 22, onError: reported.resolve })
  const socket = dial(t, forward)
  const [error] = await once(socket, 'error')
  t.is(error.code, 'ECONNRESET')
  t.like(await reported.promise, { code: 'ERR_POLICY_DENIED' })
})

test('ending a forward ends its connections and frees its port', async (t) => {
  const guest = await access(t, { onStream: (socket) => socket.write('open') })
  const forward = await forwardPort(guest, { listen: '127.0.0.1:0', port: 1 })
  const socket = dial(t, forward)
  await once(socket, 'data')
  const reset = once(socket, 'error')
  await forward[Symbol.asyncDispose]()
  const [error] = await reset
  t.is(error.code, 'ECONNRESET')
  const again = await forwardPort(guest, { listen: `127.0.0.1:${forward.port}`, port: 1 })
  await again[Symbol.asyncDispose]()
})

test('an address that is none, and a port that is taken, are told', async (t) => {
  const guest = await access(t, {})
  for (const listen of ['8080', 'host', '127.0.0.1:99999', '']) {
    await t.throwsAsync(forwardPort(guest, { listen, port: 1 }), { code: 'ERR_PORT_FORWARD' })
  }
  await using forward = await forwardPort(guest, { listen: '127.0.0.1:0', port: 1 })
  await t.throwsAsync(forwardPort(guest, { listen: `127.0.0.1:${forward.port}`, port: 1 }), {
    code: 'ERR_PORT_FORWARD',
  })
})

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
