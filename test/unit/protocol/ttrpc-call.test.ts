import { duplexPair } from 'node:stream'
import type { GenService } from '@bufbuild/protobuf/codegenv2'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import type { ByteStream } from '#protocol/byte-stream'
import { Agent, EventKind, type EventSchema, Stage, type WatchEventsRequestSchema } from '#protocol/gen/agent_pb'
import { byteStreamFromDuplex } from '#protocol/node/duplex-stream'
import { TtrpcClient } from '#protocol/ttrpc/client'
import { encodeRequest, parseResponse } from '#protocol/ttrpc/envelope'
import { encodeFrame, type Frame, FrameDecoder } from '#protocol/ttrpc/frame'
import { type CallContext, type ServerLimits, TtrpcServer } from '#protocol/ttrpc/server'
import { RpcError, rpcStatus } from '#protocol/ttrpc/status'
import { type AgentImpl, agentImpl } from '#test/fixtures/fake-guest'

function pair(): [ByteStream, ByteStream] {
  const [a, b] = duplexPair()
  return [byteStreamFromDuplex(a), byteStreamFromDuplex(b)]
}

function connect(
  t: ExecutionContext,
  methods: Partial<AgentImpl>,
  limits: Partial<ServerLimits> = {},
): { client: TtrpcClient; served: Promise<void> } {
  const [near, far] = pair()
  const server = new TtrpcServer(limits)
  server.register(Agent, agentImpl(methods))
  const served = server.serve(far)
  const client = new TtrpcClient(near)
  t.teardown(() => client.close())
  return { client, served }
}

/** A peer that writes frames by hand. */
function rawPeer(t: ExecutionContext, methods: Partial<AgentImpl>, limits: Partial<ServerLimits> = {}) {
  const [near, far] = pair()
  const server = new TtrpcServer(limits)
  server.register(Agent, agentImpl(methods))
  const served = server.serve(far)
  t.teardown(() => near.destroy())
  const decoder = new FrameDecoder()
  const received: Frame[] = []
  return {
    stream: near,
    served,
    send: (frame: Frame) => near.write(encodeFrame(frame)),
    async next(): Promise<Frame> {
      while (true) {
        const frame = received.shift()
        if (frame !== undefined) return frame
        const chunk = await near.read()
        if (chunk === null) throw new Error('the server closed the connection')
        received.push(...decoder.push(chunk))
      }
    },
  }
}

function requestFrame(streamId: number, method: string, flags = 0): Frame {
  const data = encodeRequest({
    service: Agent.typeName,
    method,
    payload: new Uint8Array(0),
    timeoutNano: 0n,
    metadata: new Map(),
  })
  return { streamId, type: 1, flags, data }
}

test('a unary call brings the request to the handler and its answer back', async (t) => {
  const { client } = connect(t, {
    openStream: async (request) => ({ ticket: `${request.containerId}:${request.port}` }),
  })
  const { ticket } = await client.unary(Agent.method.openStream, { containerId: 'c', port: 80 })
  t.is(ticket, 'c:80')
})

test('calls at once are answered out of order, each to its caller', async (t) => {
  const waiting = new Map<string, () => void>()
  const { client } = connect(t, {
    waitProcess: async ({ containerId }) => {
      await new Promise<void>((resolve) => waiting.set(containerId, resolve))
      return { exitCode: Number(containerId) }
    },
    getStatus: async () => ({ stage: Stage.READY }),
  })
  const calls = ['1', '2', '3'].map((containerId) => client.unary(Agent.method.waitProcess, { containerId }))
  await client.unary(Agent.method.getStatus, {})
  for (const containerId of ['3', '1', '2']) waiting.get(containerId)?.()
  t.deepEqual(
    (await Promise.all(calls)).map(({ exitCode }) => exitCode),
    [1, 2, 3],
  )
})

test('a status thrown by a handler reaches the caller as it is', async (t) => {
  const { client } = connect(t, {
    getStats: async () => {
      throw rpcStatus('notFound', 'container x: not found')
    },
  })
  const error = await t.throwsAsync(client.unary(Agent.method.getStats, {}), { instanceOf: RpcError })
  t.is(error?.code, 'ERR_RPC_STATUS')
  t.deepEqual(error?.status, { code: 5, message: 'container x: not found' })
})

test('the text of any other error stays on the server', async (t) => {
  const { client } = connect(t, {
    getStats: async () => {
      throw new Error('secret path /x')
    },
  })
  const error = await t.throwsAsync(client.unary(Agent.method.getStats, {}), { instanceOf: RpcError })
  t.deepEqual(error?.status, { code: 13, message: 'internal error' })
})

test('a server stream ends after its messages', async (t) => {
  const { client } = connect(t, {
    async *watchEvents({ after }) {
      for (let sequence = after + 1n; sequence <= 4n; sequence += 1n) yield { sequence, kind: EventKind.CREATED }
    },
  })
  const sequences: bigint[] = []
  for await (const event of client.serverStream(Agent.method.watchEvents, { after: 1n })) {
    sequences.push(event.sequence)
  }
  t.deepEqual(sequences, [2n, 3n, 4n])
})

test('an error in the middle of a server stream comes after the messages before it', async (t) => {
  const { client } = connect(t, {
    async *watchEvents() {
      yield { sequence: 1n }
      throw rpcStatus('aborted', 'stop')
    },
  })
  const seen: bigint[] = []
  const error = await t.throwsAsync(
    async () => {
      for await (const event of client.serverStream(Agent.method.watchEvents, {})) seen.push(event.sequence)
    },
    { instanceOf: RpcError },
  )
  t.deepEqual(seen, [1n])
  t.is(error?.status.code, 10)
})

test('the deadline passes on both sides: the caller gets a timeout, the handler is cancelled', async (t) => {
  let context: CallContext | undefined
  const { client } = connect(t, {
    getStatus: (_request, given) => {
      context = given
      return new Promise((_resolve, reject) => {
        given.signal.addEventListener('abort', () => reject(new Error('aborted')), { once: true })
      })
    },
  })
  await t.throwsAsync(client.unary(Agent.method.getStatus, {}, { timeoutMs: 20 }), { code: 'ERR_RPC_TIMEOUT' })
  if (context?.signal.aborted === false) {
    await new Promise((resolve) => context?.signal.addEventListener('abort', resolve, { once: true }))
  }
  t.true(context?.signal.aborted)
})

test('a cancelled call fails at once, and its late answer disturbs nobody', async (t) => {
  let finish: (() => void) | undefined
  const { client } = connect(t, {
    waitProcess: async () => {
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      return { exitCode: 1 }
    },
    getStatus: async () => ({ agentVersion: 'v' }),
  })
  const abort = new AbortController()
  const call = client.unary(Agent.method.waitProcess, {}, { signal: abort.signal })
  await client.unary(Agent.method.getStatus, {})
  abort.abort()
  await t.throwsAsync(call, { code: 'ERR_RPC_CANCELED' })
  finish?.()
  t.is((await client.unary(Agent.method.getStatus, {})).agentVersion, 'v')
})

test('the end of the connection fails calls of the client and cancels handlers of the server', async (t) => {
  let aborted = false
  const { client, served } = connect(t, {
    getStatus: (_request, { signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted = true
          reject(new Error('aborted'))
        })
      }),
    getStats: async () => ({}),
  })
  const call = client.unary(Agent.method.getStatus, {})
  await client.unary(Agent.method.getStats, {})
  client.close()
  await t.throwsAsync(call, { code: 'ERR_RPC_CLOSED' })
  await served
  t.true(aborted)
  await t.throwsAsync(client.unary(Agent.method.getStatus, {}), { code: 'ERR_RPC_CLOSED' })
  await client.closed
})

test('unknown services and methods are unimplemented', async (t) => {
  const peer = rawPeer(t, {})
  await peer.send(requestFrame(1, 'Nope'))
  t.like(parseResponse((await peer.next()).data).status, { code: 12, message: 'method Nope' })
  const data = encodeRequest({
    service: 'x',
    method: 'y',
    payload: new Uint8Array(0),
    timeoutNano: 0n,
    metadata: new Map(),
  })
  await peer.send({ streamId: 3, type: 1, flags: 0, data })
  t.like(parseResponse((await peer.next()).data).status, { code: 12, message: 'service x' })
})

test('stream ids are odd and increase; what breaks the rule is answered and the connection goes on', async (t) => {
  const peer = rawPeer(t, { getStatus: async () => ({}) })
  await peer.send(requestFrame(2, 'GetStatus'))
  t.is(parseResponse((await peer.next()).data).status.code, 3)
  await peer.send(requestFrame(5, 'GetStatus'))
  t.is(parseResponse((await peer.next()).data).status.code, 0)
  for (const reused of [5, 3]) {
    await peer.send(requestFrame(reused, 'GetStatus'))
    const answer = await peer.next()
    t.is(answer.streamId, reused)
    t.is(parseResponse(answer.data).status.code, 3)
  }
  await peer.send({ streamId: 9, type: 3, flags: 0, data: new Uint8Array(0) })
  t.like(parseResponse((await peer.next()).data).status, { code: 3, message: 'StreamID is no longer active' })
  await peer.send(requestFrame(11, 'GetStatus'))
  t.is(parseResponse((await peer.next()).data).status.code, 0)
})

test('unknown frame types and flags are ignored', async (t) => {
  const peer = rawPeer(t, { getStatus: async () => ({}) })
  await peer.send({ streamId: 1, type: 77, flags: 0, data: new Uint8Array(5) })
  await peer.send({ ...requestFrame(1, 'GetStatus'), flags: 0xf0 })
  t.is(parseResponse((await peer.next()).data).status.code, 0)
})

test('an oversize request is refused on its id and the connection goes on', async (t) => {
  const peer = rawPeer(t, { getStatus: async () => ({}) }, { maxMessageBytes: 100 })
  await peer.send({ streamId: 1, type: 1, flags: 0, data: new Uint8Array(101) })
  const answer = await peer.next()
  t.is(answer.streamId, 1)
  t.is(parseResponse(answer.data).status.code, 8)
  await peer.send(requestFrame(3, 'GetStatus'))
  t.is(parseResponse((await peer.next()).data).status.code, 0)
})

test('an answer above the limit becomes ResourceExhausted', async (t) => {
  const { client } = connect(
    t,
    { getStatus: async () => ({ agentVersion: 'x'.repeat(200) }) },
    { maxMessageBytes: 100 },
  )
  const error = await t.throwsAsync(client.unary(Agent.method.getStatus, {}), { instanceOf: RpcError })
  t.is(error?.status.code, 8)
})

test('one call more than allowed is refused, and there is room again when one ends', async (t) => {
  const finish: (() => void)[] = []
  const { client } = connect(
    t,
    {
      waitProcess: async () => {
        await new Promise<void>((resolve) => finish.push(resolve))
        return {}
      },
      getStatus: async () => ({}),
    },
    { maxStreams: 2 },
  )
  const first = client.unary(Agent.method.waitProcess, {})
  const second = client.unary(Agent.method.waitProcess, {})
  const error = await t.throwsAsync(client.unary(Agent.method.getStatus, {}), { instanceOf: RpcError })
  t.is(error?.status.code, 8)
  for (const one of finish) one()
  await Promise.all([first, second])
  await t.notThrowsAsync(client.unary(Agent.method.getStatus, {}))
})

test('bytes in flight are limited per connection', async (t) => {
  const { client } = connect(
    t,
    {
      execProcess: (_request, { signal }) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', reject)),
    },
    { maxInFlightBytes: 1000 },
  )
  const call = client.unary(Agent.method.execProcess, { execId: 'a'.repeat(600) })
  const error = await t.throwsAsync(client.unary(Agent.method.execProcess, { execId: 'b'.repeat(600) }), {
    instanceOf: RpcError,
  })
  t.is(error?.status.code, 8)
  client.close()
  await t.throwsAsync(call, { code: 'ERR_RPC_CLOSED' })
})

test('any bytes leave the server standing: it answers or ends, and never rejects', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 10 }), async (chunks) => {
      const peer = rawPeer(t, {}, { maxMessageBytes: 64 })
      for (const chunk of chunks) await peer.stream.write(chunk)
      await peer.stream.end()
      while ((await peer.stream.read()) !== null);
      await t.notThrowsAsync(peer.served)
    }),
    { numRuns: 100 },
  )
})

test('any bytes as frame data of any kind give typed errors to the client', async (t) => {
  const frame = fc.record({
    streamId: fc.constantFrom(1, 3, 2, 99),
    type: fc.constantFrom(1, 2, 3, 200),
    flags: fc.nat(255),
    data: fc.uint8Array({ maxLength: 40 }),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(frame, { maxLength: 10 }), async (frames) => {
      const [near, far] = pair()
      const client = new TtrpcClient(near, { maxMessageBytes: 32 })
      const calls = [
        client.unary(Agent.method.getStatus, {}),
        (async () => {
          for await (const event of client.serverStream(Agent.method.watchEvents, {})) void event
        })(),
      ]
      for (const one of frames) await far.write(encodeFrame(one))
      await far.end()
      for (const result of await Promise.allSettled(calls)) {
        t.true(result.status === 'fulfilled' || result.reason instanceof RpcError)
      }
      far.destroy()
    }),
    { numRuns: 200 },
  )
})

test('a message above the limit is refused before it is sent', async (t) => {
  const [near, far] = pair()
  const client = new TtrpcClient(near, { maxMessageBytes: 50 })
  t.teardown(() => {
    client.close()
    far.destroy()
  })
  await t.throwsAsync(client.unary(Agent.method.execProcess, { execId: 'x'.repeat(60) }), { code: 'ERR_RPC_TOO_LARGE' })
})

test('a stream that nobody reads is given up and does not block other calls for ever', async (t) => {
  const { client } = connect(t, {
    async *watchEvents() {
      for (let sequence = 1n; ; sequence += 1n) yield { sequence }
    },
    getStatus: async () => ({ agentVersion: 'v' }),
  })
  const events = client.serverStream(Agent.method.watchEvents, {})
  await events.next()
  t.is((await client.unary(Agent.method.getStatus, {})).agentVersion, 'v')
  const error = await t.throwsAsync(
    async () => {
      for await (const event of events) void event
    },
    { instanceOf: RpcError },
  )
  t.is(error?.code, 'ERR_RPC_TOO_LARGE')
})

// The agent's service has no client streams; a description with the two other kinds is made from its messages.
const method = Agent.method
const sum = {
  ...method.watchEvents,
  methodKind: 'client_streaming' as const,
  name: 'Sum',
  localName: 'sum',
  parent: { ...method.watchEvents.parent, typeName: 'test.Streams' },
}
const echo = { ...sum, methodKind: 'bidi_streaming' as const, name: 'Echo', localName: 'echo' }
type StreamMethods = {
  sum: { methodKind: 'client_streaming'; input: typeof WatchEventsRequestSchema; output: typeof EventSchema }
  echo: { methodKind: 'bidi_streaming'; input: typeof WatchEventsRequestSchema; output: typeof EventSchema }
}
const streams: GenService<StreamMethods> = {
  ...Agent,
  typeName: 'test.Streams',
  methods: [sum, echo],
  method: { sum, echo },
}

function connectStreams(t: ExecutionContext): TtrpcClient {
  const [near, far] = pair()
  const server = new TtrpcServer()
  server.register(streams, {
    async sum(requests) {
      let sequence = 0n
      for await (const { after } of requests) sequence += after
      return { sequence }
    },
    async *echo(requests) {
      for await (const { after } of requests) yield { sequence: after }
    },
  })
  void server.serve(far)
  const client = new TtrpcClient(near)
  t.teardown(() => client.close())
  return client
}

test('a client stream is answered after its last message', async (t) => {
  const client = connectStreams(t)
  const { sequence } = await client.clientStream(sum, [{ after: 1n }, { after: 2n }, { after: 3n }])
  t.is(sequence, 6n)
})

test('a handler that refuses the first message of a client stream is heard, whatever is still on its way', async (t) => {
  const refused = rpcStatus('permissionDenied', 'no')
  const { client } = connect(t, {
    setVolume: async (messages) => {
      try {
        for await (const { name } of messages) if (name === 'secret') throw refused
      } catch (error) {
        // It has left the stream, and answers later: further messages come in between.
        await new Promise(setImmediate)
        throw error
      }
      return {}
    },
  })
  const messages = [
    { name: 'secret' },
    ...Array.from({ length: 20 }, () => ({ files: [{ content: new Uint8Array(9) }] })),
  ]
  for (let round = 0; round < 20; round++) {
    const error = await t.throwsAsync(client.clientStream(Agent.method.setVolume, messages), { instanceOf: RpcError })
    t.deepEqual(error?.status, refused.status)
  }
  await client.clientStream(Agent.method.setVolume, [{ name: 'open' }, { name: '' }])
})

test('a bidirectional stream carries messages both ways until both sides end', async (t) => {
  const stream = connectStreams(t).bidi(echo)
  const iterator = stream[Symbol.asyncIterator]()
  for (const after of [5n, 6n]) {
    await stream.send({ after })
    t.is((await iterator.next()).value?.sequence, after)
  }
  await stream.closeSend()
  t.true((await iterator.next()).done)
})
