/**
 * The calling end of ttrpc. The peer may be hostile (the host's client talks to a guest it does not trust, the guest's to
 * a host): answers are bounded, unknown ids are dropped, a stream that is not read for a second is given up.
 */
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import type { ByteStream } from '../byte-stream.ts'
import { errorText } from '../errors.ts'
import { FrameConnection } from './connection.ts'
import { encodeRequest, parseResponse } from './envelope.ts'
import {
  FLAG_NO_DATA,
  FLAG_REMOTE_CLOSED,
  FLAG_REMOTE_OPEN,
  type Frame,
  MAX_FRAME_BYTES,
  MessageType,
} from './frame.ts'
import { MessageQueue } from './message-queue.ts'
import { RpcError, type RpcErrorCode, StatusCode } from './status.ts'

/** A method of a generated service description: `Agent.method.getStatus`. */
export type Method<Kind extends string, Input extends DescMessage, Output extends DescMessage> = DescMethod & {
  readonly methodKind: Kind
  readonly input: Input
  readonly output: Output
}

export interface CallOptions {
  /** Also told to the server. None by default. Milliseconds. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
  /** Keys are sent in lower case. */
  readonly metadata?: Readonly<Record<string, string>>
}

/** A bidirectional stream; iterate it for the server's messages. */
export interface ClientStream<Input extends DescMessage, Output extends DescMessage>
  extends AsyncIterable<MessageShape<Output>> {
  send(message: MessageInitShape<Input>): Promise<void>
  /** No more messages from this side. */
  closeSend(): Promise<void>
}

/** Messages of one stream that may wait unread; the same as Go's client. */
const MAX_UNREAD_MESSAGES = 64
const UNREAD_PATIENCE_MS = 1000
const MAX_STREAM_ID = 0xffffffff

interface PendingCall {
  /** Data frames and, at the end, the payload of an OK Response. */
  readonly messages: MessageQueue<Uint8Array>
  /** Whether the server answers with Data frames. */
  readonly streaming: boolean
}

export class TtrpcClient {
  readonly #frames: FrameConnection
  readonly #maxMessageBytes: number
  readonly #calls = new Map<number, PendingCall>()
  #nextId = 1

  /** Resolves when the connection has ended, for whatever reason. */
  readonly closed: Promise<void>

  /** Takes over the stream. @param options maxMessageBytes: largest message sent and accepted, at most 4 MiB */
  constructor(stream: ByteStream, options: { readonly maxMessageBytes?: number } = {}) {
    this.#maxMessageBytes = Math.min(options.maxMessageBytes ?? MAX_FRAME_BYTES, MAX_FRAME_BYTES)
    this.#frames = new FrameConnection(stream, this.#maxMessageBytes)
    this.closed = this.#receiveAll()
  }

  /** @throws RpcError */
  async unary<Input extends DescMessage, Output extends DescMessage>(
    method: Method<'unary', Input, Output>,
    message: MessageInitShape<Input>,
    options: CallOptions = {},
  ): Promise<MessageShape<Output>> {
    const call = this.#start(method, encode(method.input, message), 0, false, options)
    return this.#onlyMessage(call, method.output, options)
  }

  /** Leaving the iteration early forgets the stream; the protocol has no way to tell the server. @throws RpcError */
  async *serverStream<Input extends DescMessage, Output extends DescMessage>(
    method: Method<'server_streaming', Input, Output>,
    message: MessageInitShape<Input>,
    options: CallOptions = {},
  ): AsyncGenerator<MessageShape<Output>, void, undefined> {
    const payload = encode(method.input, message)
    yield* this.#messages(this.#start(method, payload, FLAG_REMOTE_CLOSED, true, options), method.output, options)
  }

  /** @throws RpcError */
  async clientStream<Input extends DescMessage, Output extends DescMessage>(
    method: Method<'client_streaming', Input, Output>,
    messages: AsyncIterable<MessageInitShape<Input>> | Iterable<MessageInitShape<Input>>,
    options: CallOptions = {},
  ): Promise<MessageShape<Output>> {
    const call = this.#start(method, new Uint8Array(0), FLAG_REMOTE_OPEN, false, options)
    const answer = this.#onlyMessage(call, method.output, options)
    const sent = (async () => {
      for await (const message of messages) {
        if (call.messages.ended) return
        await this.#sendData(call, encode(method.input, message))
      }
      if (!call.messages.ended) await this.#closeSend(call)
    })()
    await Promise.all([answer, sent])
    return answer
  }

  bidi<Input extends DescMessage, Output extends DescMessage>(
    method: Method<'bidi_streaming', Input, Output>,
    options: CallOptions = {},
  ): ClientStream<Input, Output> {
    const call = this.#start(method, new Uint8Array(0), FLAG_REMOTE_OPEN, true, options)
    const received = this.#messages(call, method.output, options)
    return {
      send: (message) => this.#sendData(call, encode(method.input, message)),
      closeSend: () => this.#closeSend(call),
      [Symbol.asyncIterator]: () => received,
    }
  }

  /** Fails all outstanding calls with ERR_RPC_CLOSED. */
  close(): void {
    this.#frames.close()
  }

  #start(
    method: DescMethod,
    payload: Uint8Array,
    flags: number,
    streaming: boolean,
    options: CallOptions,
  ): PendingCall & { readonly id: number } {
    const data = encodeRequest({
      service: method.parent.typeName,
      method: method.name,
      payload,
      timeoutNano: BigInt(Math.ceil(options.timeoutMs ?? 0)) * 1_000_000n,
      metadata: new Map(Object.entries(options.metadata ?? {}).map(([key, value]) => [key, [value]])),
    })
    this.#checkSize(data)
    if (this.#frames.closed) throw closedError()
    const id = this.#nextId
    // Peers do not handle wrap-around; a new connection starts again at 1.
    if (id > MAX_STREAM_ID) throw localError('ERR_RPC_CLOSED', 'unavailable', 'stream ids are used up; reconnect')
    this.#nextId += 2
    const call = { id, messages: new MessageQueue<Uint8Array>(), streaming }
    this.#calls.set(id, call)
    this.#frames.send({ streamId: id, type: MessageType.request, flags, data }).catch((cause: unknown) => {
      call.messages.end(closedError(cause))
    })
    return call
  }

  async #onlyMessage<Output extends DescMessage>(
    call: PendingCall & { readonly id: number },
    schema: Output,
    options: CallOptions,
  ): Promise<MessageShape<Output>> {
    for await (const message of this.#messages(call, schema, options)) return message
    throw localError('ERR_RPC_PROTOCOL', 'internal', 'the server ended the call without an answer')
  }

  async *#messages<Output extends DescMessage>(
    call: PendingCall & { readonly id: number },
    schema: Output,
    { timeoutMs, signal }: CallOptions,
  ): AsyncGenerator<MessageShape<Output>, void, undefined> {
    const cancel = () => call.messages.end(localError('ERR_RPC_CANCELED', 'canceled', 'the call was cancelled', signal))
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            call.messages.end(
              localError('ERR_RPC_TIMEOUT', 'deadlineExceeded', `no answer in ${timeoutMs} ms`, undefined),
            )
          }, timeoutMs)
    signal?.addEventListener('abort', cancel, { once: true })
    if (signal?.aborted === true) cancel()
    try {
      for await (const bytes of call.messages) yield decode(schema, bytes)
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', cancel)
      this.#calls.delete(call.id)
    }
  }

  async #sendData(call: { readonly id: number }, data: Uint8Array): Promise<void> {
    this.#checkSize(data)
    await this.#send(call.id, 0, data)
  }

  /** Servers refuse a closing frame that holds a message, so closing is a frame of its own. */
  async #closeSend(call: { readonly id: number }): Promise<void> {
    await this.#send(call.id, FLAG_REMOTE_CLOSED | FLAG_NO_DATA, new Uint8Array(0))
  }

  async #send(streamId: number, flags: number, data: Uint8Array): Promise<void> {
    try {
      await this.#frames.send({ streamId, type: MessageType.data, flags, data })
    } catch (cause) {
      throw closedError(cause)
    }
  }

  #checkSize(data: Uint8Array): void {
    if (data.byteLength <= this.#maxMessageBytes) return
    throw localError(
      'ERR_RPC_TOO_LARGE',
      'resourceExhausted',
      `message of ${data.byteLength} bytes exceeds ${this.#maxMessageBytes}`,
    )
  }

  async #receiveAll(): Promise<void> {
    for await (const frame of this.#frames.frames()) {
      const call = this.#calls.get(frame.streamId)
      // A call that was given up, or an id the peer made up.
      if (call === undefined) continue
      this.#receive(call, frame)
      if (await call.messages.room(MAX_UNREAD_MESSAGES, UNREAD_PATIENCE_MS)) continue
      call.messages.end(
        localError('ERR_RPC_TOO_LARGE', 'resourceExhausted', `${MAX_UNREAD_MESSAGES} messages were not read in time`),
      )
    }
    for (const call of this.#calls.values()) call.messages.end(closedError())
  }

  #receive(call: PendingCall, frame: Frame): void {
    if (frame.oversize !== undefined) {
      const message = `the answer has ${frame.oversize} bytes, allowed ${this.#maxMessageBytes}`
      call.messages.end(localError('ERR_RPC_TOO_LARGE', 'resourceExhausted', message))
    } else if (frame.type === MessageType.response) {
      this.#receiveResponse(call, frame.data)
    } else if (frame.type === MessageType.data) {
      if (!call.streaming) {
        call.messages.end(localError('ERR_RPC_PROTOCOL', 'internal', 'the server streams where it should answer'))
        return
      }
      if ((frame.flags & FLAG_NO_DATA) === 0) call.messages.push(frame.data)
      if ((frame.flags & FLAG_REMOTE_CLOSED) !== 0) call.messages.end()
    }
  }

  #receiveResponse(call: PendingCall, data: Uint8Array): void {
    try {
      const { status, payload } = parseResponse(data)
      if (status.code !== StatusCode.ok) call.messages.end(new RpcError('ERR_RPC_STATUS', status))
      else if (!call.streaming) call.messages.push(payload)
      call.messages.end()
    } catch (cause) {
      call.messages.end(localError('ERR_RPC_PROTOCOL', 'internal', errorText(cause), cause))
    }
  }
}

function encode<Desc extends DescMessage>(schema: Desc, message: MessageInitShape<Desc>): Uint8Array {
  return toBinary(schema, create(schema, message))
}

function decode<Desc extends DescMessage>(schema: Desc, bytes: Uint8Array): MessageShape<Desc> {
  try {
    return fromBinary(schema, bytes, { readUnknownFields: false })
  } catch (cause) {
    throw localError('ERR_RPC_PROTOCOL', 'internal', `the answer is no ${schema.typeName}: ${errorText(cause)}`, cause)
  }
}

function closedError(cause?: unknown): RpcError {
  return localError('ERR_RPC_CLOSED', 'unavailable', 'the connection ended before the answer', cause)
}

function localError(code: RpcErrorCode, status: keyof typeof StatusCode, message: string, cause?: unknown): RpcError {
  return new RpcError(code, { code: StatusCode[status], message }, cause === undefined ? {} : { cause })
}
