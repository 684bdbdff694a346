/**
 * One peer of a ttrpc server. The peer may be hostile: whatever it sends, the connection holds at most the streams and
 * bytes that its limits say, and a bad call costs that call only.
 *
 * Deviation from Go's server: a Data frame that closes the stream may hold a message.
 */

import type { MessageInitShape } from '@bufbuild/protobuf'
import { create, type DescMessage, type DescMethod, fromBinary, type Message, toBinary } from '@bufbuild/protobuf'
import type { ByteStream } from '../byte-stream.ts'
import { FrameConnection } from './connection.ts'
import { encodeResponse, parseRequest, type RequestEnvelope } from './envelope.ts'
import { FLAG_NO_DATA, FLAG_REMOTE_CLOSED, FLAG_REMOTE_OPEN, type Frame, MessageType } from './frame.ts'
import { MessageQueue } from './message-queue.ts'
import type { CallContext, ServerLimits } from './server.ts'
import { RpcError, type Status, StatusCode } from './status.ts'

/** A handler as the dispatcher sees it: the description says which of the four shapes it has. */
export type Handler = (
  input: Message | AsyncIterable<Message>,
  context: CallContext,
) => Promise<MessageInitShape<DescMessage>> | AsyncIterable<MessageInitShape<DescMessage>>

export interface Endpoint {
  readonly method: DescMethod
  readonly handler: Handler
}

/** What queueing one frame costs us besides its bytes, so that empty frames are not free. */
const FRAME_OVERHEAD_BYTES = 128
const MAX_TIMER_MS = 0x7fffffff
const OK: Status = { code: StatusCode.ok, message: '' }
const EMPTY = new Uint8Array(0)

interface OpenCall {
  readonly id: number
  readonly abort: AbortController
  /** Present while the client may still send. */
  readonly incoming: MessageQueue<Uint8Array> | undefined
  /** The client said that nothing more comes. */
  closed: boolean
  /** Set when the last frame of the stream was sent; the handler may still be running. */
  answered: boolean
}

export class ServerConnection {
  readonly #frames: FrameConnection
  readonly #limits: ServerLimits
  readonly #services: ReadonlyMap<string, ReadonlyMap<string, Endpoint>>
  readonly #toStatus: (error: unknown) => Status
  readonly #calls = new Map<number, OpenCall>()
  #lastId = 0
  #inFlightBytes = 0

  constructor(
    stream: ByteStream,
    limits: ServerLimits,
    services: ReadonlyMap<string, ReadonlyMap<string, Endpoint>>,
    toStatus: (error: unknown) => Status,
  ) {
    this.#frames = new FrameConnection(stream, limits.maxMessageBytes)
    this.#limits = limits
    this.#services = services
    this.#toStatus = toStatus
  }

  async run(): Promise<void> {
    for await (const frame of this.#frames.frames()) {
      this.#receive(frame)
      await this.#frames.drained()
    }
    for (const call of this.#calls.values()) {
      call.abort.abort()
      call.incoming?.end(closedError())
    }
  }

  close(): void {
    this.#frames.close()
  }

  #receive(frame: Frame): void {
    // Types of later versions are ignored, as are Responses, which a client has no reason to send.
    if (frame.type !== MessageType.request && frame.type !== MessageType.data) return
    const call = frame.type === MessageType.data ? this.#calls.get(frame.streamId) : undefined
    const problem = this.#take(frame, call)
    if (problem === undefined) return
    if (call === undefined) this.#refuse(frame.streamId, problem)
    else this.#fail(call, problem)
  }

  #take(frame: Frame, call: OpenCall | undefined): Status | undefined {
    if (frame.streamId % 2 !== 1) return status('invalidArgument', 'StreamID must be odd')
    if (frame.type === MessageType.request) return this.#takeRequest(frame)
    // An id never used, or one whose answer crossed this frame on the way.
    if (call === undefined) return status('invalidArgument', 'StreamID is no longer active')
    return this.#takeData(frame, call)
  }

  #takeRequest(frame: Frame): Status | undefined {
    const { streamId, flags } = frame
    if (streamId <= this.#lastId) return status('invalidArgument', 'StreamID cannot be re-used and must increment')
    this.#lastId = streamId
    if (frame.oversize !== undefined) return this.#tooLarge(frame.oversize)
    const cost = frame.data.byteLength + FRAME_OVERHEAD_BYTES
    if (this.#calls.size >= this.#limits.maxStreams) {
      return status('resourceExhausted', `more than ${this.#limits.maxStreams} calls at once`)
    }
    if (this.#inFlightBytes + cost > this.#limits.maxInFlightBytes) {
      return status('resourceExhausted', `more than ${this.#limits.maxInFlightBytes} bytes in flight`)
    }
    let request: RequestEnvelope
    try {
      request = parseRequest(frame.data)
    } catch {
      return status('invalidArgument', 'malformed request')
    }
    const service = this.#services.get(request.service)
    if (service === undefined) return status('unimplemented', `service ${request.service}`)
    const endpoint = service.get(request.method)
    if (endpoint === undefined) return status('unimplemented', `method ${request.method}`)
    const { methodKind } = endpoint.method
    const clientStreams = methodKind === 'client_streaming' || methodKind === 'bidi_streaming'
    if (!clientStreams && (flags & FLAG_REMOTE_OPEN) !== 0) {
      return status('invalidArgument', `method ${request.method} takes one message`)
    }
    this.#open(streamId, endpoint, request, { cost, incoming: clientStreams ? this.#queue(request, flags) : undefined })
    return undefined
  }

  #open(
    id: number,
    endpoint: Endpoint,
    request: RequestEnvelope,
    { cost, incoming }: { cost: number; incoming: MessageQueue<Uint8Array> | undefined },
  ): void {
    this.#inFlightBytes += cost
    const closed = incoming === undefined || incoming.ended
    const call: OpenCall = { id, abort: new AbortController(), incoming, closed, answered: false }
    this.#calls.set(id, call)
    void this.#run(call, endpoint, request).finally(() => {
      this.#inFlightBytes -= cost
      this.#calls.delete(id)
      incoming?.discard()
    })
  }

  #queue(request: RequestEnvelope, flags: number): MessageQueue<Uint8Array> {
    const queue = new MessageQueue<Uint8Array>((message) => {
      this.#inFlightBytes -= message.byteLength + FRAME_OVERHEAD_BYTES
    })
    if (request.payload.byteLength > 0) this.#enqueue(queue, request.payload)
    if ((flags & FLAG_REMOTE_CLOSED) !== 0) queue.end()
    return queue
  }

  #enqueue(queue: MessageQueue<Uint8Array>, message: Uint8Array): void {
    this.#inFlightBytes += message.byteLength + FRAME_OVERHEAD_BYTES
    queue.push(message)
  }

  #takeData(frame: Frame, call: OpenCall): Status | undefined {
    if (call.answered) return undefined
    if (call.incoming === undefined || call.closed) {
      return status('invalidArgument', 'the client closed this stream before')
    }
    if (frame.oversize !== undefined) return this.#tooLarge(frame.oversize)
    if ((frame.flags & FLAG_NO_DATA) === 0) {
      const cost = frame.data.byteLength + FRAME_OVERHEAD_BYTES
      if (this.#inFlightBytes + cost > this.#limits.maxInFlightBytes) {
        return status('resourceExhausted', 'too many unread messages')
      }
      // A handler that has stopped reading is about to answer: what still comes is thrown away.
      this.#enqueue(call.incoming, frame.data)
    }
    if ((frame.flags & FLAG_REMOTE_CLOSED) !== 0) {
      call.closed = true
      call.incoming.end()
    }
    return undefined
  }

  async #run(call: OpenCall, endpoint: Endpoint, request: RequestEnvelope): Promise<void> {
    const { signal } = call.abort
    const timer = this.#startDeadline(call, request.timeoutNano)
    const context: CallContext = { signal, metadata: request.metadata }
    try {
      const input =
        call.incoming === undefined
          ? decode(endpoint.method.input, request.payload)
          : decodeAll(endpoint.method.input, call.incoming)
      const output = endpoint.handler(input, context)
      if (isAsyncIterable(output)) await this.#stream(call, endpoint.method.output, output)
      else this.#reply(call, toBinary(endpoint.method.output, create(endpoint.method.output, await output)))
    } catch (error) {
      this.#fail(call, this.#toStatus(error))
    } finally {
      clearTimeout(timer)
    }
  }

  #startDeadline(call: OpenCall, timeoutNano: bigint): ReturnType<typeof setTimeout> | undefined {
    if (timeoutNano <= 0n) return undefined
    const timeoutMs = Math.min(Number(timeoutNano / 1_000_000n) + 1, MAX_TIMER_MS)
    return setTimeout(() => this.#fail(call, status('deadlineExceeded', 'the deadline of the call passed')), timeoutMs)
  }

  async #stream(
    call: OpenCall,
    schema: DescMessage,
    messages: AsyncIterable<MessageInitShape<DescMessage>>,
  ): Promise<void> {
    const iterator = messages[Symbol.asyncIterator]()
    const aborted = new Promise<'aborted'>((resolve) => {
      call.abort.signal.addEventListener('abort', () => resolve('aborted'), { once: true })
    })
    while (true) {
      const step = await Promise.race([iterator.next(), aborted])
      if (step === 'aborted' || call.abort.signal.aborted) {
        // Not awaited: a handler that waits for something else than the signal ends when that comes.
        iterator.return?.().catch(() => undefined)
        return
      }
      if (step.done === true) break
      const data = toBinary(schema, create(schema, step.value))
      if (data.byteLength > this.#limits.maxMessageBytes) {
        this.#fail(call, this.#tooLarge(data.byteLength))
        return
      }
      await this.#frames.send({ streamId: call.id, type: MessageType.data, flags: 0, data })
    }
    this.#answer(call, MessageType.data, FLAG_REMOTE_CLOSED | FLAG_NO_DATA, EMPTY)
  }

  #reply(call: OpenCall, payload: Uint8Array): void {
    const data = encodeResponse({ status: OK, payload })
    if (data.byteLength > this.#limits.maxMessageBytes) this.#fail(call, this.#tooLarge(data.byteLength))
    else this.#answer(call, MessageType.response, 0, data)
  }

  /** Answers a running call early and cancels its handler, whose own result is then dropped. */
  #fail(call: OpenCall, status: Status): void {
    this.#answer(call, MessageType.response, 0, encodeResponse({ status, payload: EMPTY }))
    call.abort.abort()
    call.incoming?.end(new RpcError('ERR_RPC_CANCELED', status))
  }

  #answer(call: OpenCall, type: number, flags: number, data: Uint8Array): void {
    if (call.answered) return
    call.answered = true
    this.#send({ streamId: call.id, type, flags, data })
  }

  /** Answers an id that has no call. */
  #refuse(streamId: number, status: Status): void {
    const data = encodeResponse({ status, payload: EMPTY })
    this.#send({ streamId, type: MessageType.response, flags: 0, data })
  }

  /** A failed write has ended the connection, which ends every call; there is nobody left to tell. */
  #send(frame: Frame): void {
    this.#frames.send(frame).catch(() => undefined)
  }

  #tooLarge(bytes: number): Status {
    return status('resourceExhausted', `message of ${bytes} bytes exceeds ${this.#limits.maxMessageBytes}`)
  }
}

function status(code: keyof typeof StatusCode, message: string): Status {
  return { code: StatusCode[code], message }
}

function decode(schema: DescMessage, payload: Uint8Array): Message {
  try {
    return fromBinary(schema, payload, { readUnknownFields: false })
  } catch (cause) {
    throw new RpcError(
      'ERR_RPC_STATUS',
      { code: StatusCode.invalidArgument, message: `malformed ${schema.typeName}` },
      { cause },
    )
  }
}

async function* decodeAll(schema: DescMessage, messages: AsyncIterable<Uint8Array>): AsyncGenerator<Message> {
  for await (const message of messages) yield decode(schema, message)
}

function isAsyncIterable<T>(value: Promise<T> | AsyncIterable<T>): value is AsyncIterable<T> {
  return Symbol.asyncIterator in value
}

function closedError(): RpcError {
  return new RpcError('ERR_RPC_CLOSED', { code: StatusCode.unavailable, message: 'the connection ended' })
}
