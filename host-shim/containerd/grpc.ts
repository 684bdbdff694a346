/** gRPC over Unix sockets with the generated descriptions: containerd's plugin sockets, and its own. */

import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import type { GenService, GenServiceMethods } from '@bufbuild/protobuf/codegenv2'
import {
  Client,
  type ClientOptions,
  credentials,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerWritableStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js'
import type { Method } from '#protocol/ttrpc/client'

const OPTIONS: ClientOptions = {
  // Go's server refuses the authority that is made from a socket's path.
  'grpc.default_authority': 'localhost',
  'grpc.max_receive_message_length': 16 * 1024 * 1024,
}

export interface GrpcCallOptions {
  /** Milliseconds. */
  readonly timeoutMs?: number
  readonly metadata?: Readonly<Record<string, string>>
}

/** A connection to one socket; made when first used, and again after it broke. */
export class GrpcClient implements Disposable {
  readonly #client: Client

  /** @param path of the Unix socket */
  constructor(path: string) {
    this.#client = new Client(`unix://${path}`, credentials.createInsecure(), OPTIONS)
  }

  /** @throws ServiceError of grpc-js: `code` and `details` are the server's */
  unary<Input extends DescMessage, Output extends DescMessage>(
    method: Method<'unary', Input, Output>,
    request: MessageInitShape<Input>,
    options: GrpcCallOptions = {},
  ): Promise<MessageShape<Output>> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        pathOf(method),
        (message: MessageShape<Input>) => Buffer.from(toBinary(method.input, message)),
        (bytes) => fromBinary(method.output, bytes),
        create(method.input, request),
        metadataOf(options),
        options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs },
        (error, answer) => (answer === undefined ? reject(error) : resolve(answer)),
      )
    })
  }

  async *serverStream<Input extends DescMessage, Output extends DescMessage>(
    method: Method<'server_streaming', Input, Output>,
    request: MessageInitShape<Input>,
    options: GrpcCallOptions = {},
  ): AsyncGenerator<MessageShape<Output>, void, undefined> {
    const stream = this.#client.makeServerStreamRequest(
      pathOf(method),
      (message: MessageShape<Input>) => Buffer.from(toBinary(method.input, message)),
      (bytes) => fromBinary(method.output, bytes),
      create(method.input, request),
      metadataOf(options),
      options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs },
    )
    for await (const message of stream as AsyncIterable<MessageShape<Output>>) yield message
  }

  /** One message each way, over a method that could stream both. @throws ServiceError of grpc-js */
  exchange<Input extends DescMessage, Output extends DescMessage>(
    method: Method<'bidi_streaming', Input, Output>,
    request: MessageInitShape<Input>,
    options: GrpcCallOptions = {},
  ): Promise<MessageShape<Output>> {
    const stream = this.#client.makeBidiStreamRequest(
      pathOf(method),
      (message: MessageShape<Input>) => Buffer.from(toBinary(method.input, message)),
      (bytes) => fromBinary(method.output, bytes),
      metadataOf(options),
      options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs },
    )
    return new Promise((resolve, reject) => {
      stream.once('data', resolve)
      stream.once('error', reject)
      stream.once('end', () => reject(new GrpcStatusError(UNKNOWN, `${pathOf(method)} ended without an answer`)))
      stream.end(create(method.input, request))
    })
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }
}

const UNKNOWN = 2

export interface GrpcCallContext {
  readonly metadata: Metadata
}

type MethodImpl<Kind, Input extends DescMessage, Output extends DescMessage> = Kind extends 'unary'
  ? (request: MessageShape<Input>, context: GrpcCallContext) => Promise<MessageInitShape<Output>>
  : (request: MessageShape<Input>, context: GrpcCallContext) => AsyncIterable<MessageInitShape<Output>>

/** An object with one function per method; unary and server-streaming methods are all that is served. */
export type GrpcServiceImpl<Methods extends GenServiceMethods> = {
  readonly [Name in keyof Methods]: MethodImpl<
    Methods[Name]['methodKind'],
    Methods[Name]['input'],
    Methods[Name]['output']
  >
}

/** What a handler throws to answer with a status. `code` is gRPC's number. */
export class GrpcStatusError extends Error {
  readonly code: number

  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }
}

/** The two arguments of grpc-js's `Server.addService`. */
export function grpcService<Methods extends GenServiceMethods>(
  service: GenService<Methods>,
  impl: GrpcServiceImpl<Methods>,
): readonly [ServiceDefinition, UntypedServiceImplementation] {
  const definition: Record<string, ServiceDefinition[string]> = {}
  const handlers: Record<string, UntypedServiceImplementation[string]> = {}
  for (const method of service.methods) {
    const serverStreams = method.methodKind === 'server_streaming'
    definition[method.localName] = {
      path: pathOf(method),
      requestStream: false,
      responseStream: serverStreams,
      requestSerialize: (message: Message) => Buffer.from(toBinary(method.input, message)),
      requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
      responseSerialize: (message: Message) => Buffer.from(toBinary(method.output, message)),
      responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
    }
    const handler: unknown = Reflect.get(impl, method.localName)
    if (!isFunction(handler)) throw new TypeError(`${service.typeName} lacks ${method.localName}`)
    handlers[method.localName] = serverStreams
      ? streamHandler(method, impl, handler)
      : unaryHandler(method, impl, handler)
  }
  return [definition, handlers]
}

type AnyFunction = (...args: never) => unknown

function isFunction(value: unknown): value is AnyFunction {
  return typeof value === 'function'
}

function unaryHandler(method: DescMethod, impl: object, handler: AnyFunction): handleUnaryCall<Message, Message> {
  return (call, callback) => {
    const answer = Reflect.apply(handler, impl, [call.request, { metadata: call.metadata }]) as Promise<
      MessageInitShape<DescMessage>
    >
    answer.then(
      (message) => callback(null, create(method.output, message)),
      (error: unknown) => callback(statusOf(error)),
    )
  }
}

function streamHandler(
  method: DescMethod,
  impl: object,
  handler: AnyFunction,
): handleServerStreamingCall<Message, Message> {
  return (call) => {
    const messages = Reflect.apply(handler, impl, [call.request, { metadata: call.metadata }]) as AsyncIterable<
      MessageInitShape<DescMessage>
    >
    void send(call, method, messages)
  }
}

async function send(
  call: ServerWritableStream<Message, Message>,
  method: DescMethod,
  messages: AsyncIterable<MessageInitShape<DescMessage>>,
): Promise<void> {
  try {
    for await (const message of messages) {
      if (!call.write(create(method.output, message))) await new Promise((resolve) => call.once('drain', resolve))
    }
    call.end()
  } catch (error) {
    call.emit('error', statusOf(error))
  }
}

function statusOf(error: unknown): { code: number; details: string } {
  const details = error instanceof Error ? error.message : String(error)
  const code = error instanceof Error && 'code' in error && typeof error.code === 'number' ? error.code : 2
  // grpc-js gives `details` to errors that it received; a delegated call passes them on as they came.
  return { code, details: error instanceof Error && 'details' in error ? String(error.details) : details }
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`
}

function metadataOf({ metadata = {} }: GrpcCallOptions): Metadata {
  const headers = new Metadata()
  for (const [name, value] of Object.entries(metadata)) headers.set(name, value)
  return headers
}
