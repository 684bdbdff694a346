/**
 * The answering end of ttrpc: services by name, and one `ServerConnection` per peer. No handler's error text reaches the
 * peer unless the handler threw it with `rpcStatus` for that purpose.
 */
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import type { GenService, GenServiceMethods } from '@bufbuild/protobuf/codegenv2'
import type { ByteStream } from '../byte-stream.ts'
import type { Metadata } from './envelope.ts'
import { MAX_FRAME_BYTES } from './frame.ts'
import { type Endpoint, type Handler, ServerConnection } from './server-connection.ts'
import { RpcError, type Status, StatusCode } from './status.ts'

export interface ServerLimits {
  /** Largest message accepted and sent, at most 4 MiB (the default). */
  readonly maxMessageBytes: number
  /** Calls at once on one connection; one more is answered ResourceExhausted. Default 256. */
  readonly maxStreams: number
  /** Bytes of requests and unread messages held at once for one connection. Default 16 MiB. */
  readonly maxInFlightBytes: number
}

export interface CallContext {
  /** Fires at the caller's deadline and when the connection ends. */
  readonly signal: AbortSignal
  readonly metadata: Metadata
}

type MethodImpl<Kind, Input extends DescMessage, Output extends DescMessage> = Kind extends 'unary'
  ? (request: MessageShape<Input>, context: CallContext) => Promise<MessageInitShape<Output>>
  : Kind extends 'server_streaming'
    ? (request: MessageShape<Input>, context: CallContext) => AsyncIterable<MessageInitShape<Output>>
    : Kind extends 'client_streaming'
      ? (requests: AsyncIterable<MessageShape<Input>>, context: CallContext) => Promise<MessageInitShape<Output>>
      : (requests: AsyncIterable<MessageShape<Input>>, context: CallContext) => AsyncIterable<MessageInitShape<Output>>

/** An object with one function per method of a service, typed by the generated description. */
export type ServiceImpl<Methods extends GenServiceMethods> = {
  readonly [Name in keyof Methods]: MethodImpl<
    Methods[Name]['methodKind'],
    Methods[Name]['input'],
    Methods[Name]['output']
  >
}

export class TtrpcServer {
  readonly #limits: ServerLimits
  readonly #toStatus: (error: unknown) => Status
  readonly #services = new Map<string, Map<string, Endpoint>>()
  readonly #connections = new Set<ServerConnection>()

  /** @param toStatus what the peer learns of an error; the default tells only what `rpcStatus` made. */
  constructor(options: Partial<ServerLimits> & { readonly toStatus?: (error: unknown) => Status } = {}) {
    this.#limits = {
      maxMessageBytes: Math.min(options.maxMessageBytes ?? MAX_FRAME_BYTES, MAX_FRAME_BYTES),
      maxStreams: options.maxStreams ?? 256,
      maxInFlightBytes: options.maxInFlightBytes ?? 16 * 1024 * 1024,
    }
    this.#toStatus = options.toStatus ?? statusOfError
  }

  register<Methods extends GenServiceMethods>(service: GenService<Methods>, impl: ServiceImpl<Methods>): void {
    const endpoints = new Map<string, Endpoint>()
    for (const method of service.methods) {
      const handler: unknown = Reflect.get(impl, method.localName)
      if (!isHandler(handler)) throw new TypeError(`${service.typeName} lacks ${method.localName}`)
      endpoints.set(method.name, { method, handler: (input, context) => handler.call(impl, input, context) })
    }
    this.#services.set(service.typeName, endpoints)
  }

  /** Answers calls on one connection until it ends. Takes over the stream; never rejects. */
  async serve(stream: ByteStream): Promise<void> {
    const connection = new ServerConnection(stream, this.#limits, this.#services, this.#toStatus)
    this.#connections.add(connection)
    try {
      await connection.run()
    } finally {
      this.#connections.delete(connection)
    }
  }

  /** Ends all connections; their handlers are cancelled. */
  close(): void {
    for (const connection of this.#connections) connection.close()
  }
}

/** Errors made by `rpcStatus` as they are; of anything else only that something failed. */
export function statusOfError(error: unknown): Status {
  return error instanceof RpcError ? error.status : { code: StatusCode.internal, message: 'internal error' }
}

function isHandler(value: unknown): value is Handler {
  return typeof value === 'function'
}
