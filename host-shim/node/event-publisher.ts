/**
 * Tells containerd what happened to tasks, in order. Events wait in the pod's record until containerd has taken them, so
 * neither its restart nor ours loses one.
 */
import { connect } from 'node:net'
import { create, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { byteStreamFromDuplex } from '#protocol/node/duplex-stream'
import { TtrpcClient } from '#protocol/ttrpc/client'
import { RpcError } from '#protocol/ttrpc/status'
import { Events } from '../containerd/gen/event-service_pb.ts'
import type { EventRecord } from './pod-record.ts'

const CALL_TIMEOUT_MS = 5000
const FIRST_RETRY_MS = 100
const LAST_RETRY_MS = 5000

/** The record of an event that happens now. `topic` is containerd's: "/tasks/exit". */
export function eventRecord<Schema extends DescMessage>(
  topic: string,
  schema: Schema,
  message: MessageInitShape<Schema>,
): EventRecord {
  const value = Buffer.from(toBinary(schema, create(schema, message))).toString('base64')
  return { topic, type: schema.typeName, value, atMs: Date.now() }
}

export interface EventQueue {
  readonly namespace: string
  /** containerd's ttrpc socket. */
  readonly address: string
  readonly events: EventRecord[]
  /** Called when the oldest event has been taken off. */
  saved(): void
}

export class EventPublisher {
  readonly #queue: EventQueue
  #client: TtrpcClient | undefined
  #running: Promise<void> | undefined
  readonly #closed = new AbortController()

  constructor(queue: EventQueue) {
    this.#queue = queue
  }

  /** Sends what waits; resolves when nothing waits any more, or at `close`. */
  flush(): Promise<void> {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
    })
    return this.#running
  }

  close(): void {
    this.#closed.abort()
    this.#client?.close()
  }

  async #run(): Promise<void> {
    let retryMs = FIRST_RETRY_MS
    while (!this.#closed.signal.aborted) {
      const [event] = this.#queue.events
      if (event === undefined) return
      if (await this.#send(event)) {
        this.#queue.events.shift()
        this.#queue.saved()
        retryMs = FIRST_RETRY_MS
        continue
      }
      await sleep(retryMs, this.#closed.signal)
      retryMs = Math.min(2 * retryMs, LAST_RETRY_MS)
    }
  }

  /** Whether containerd has dealt with it; a refusal is an answer too, and would be the same the next time. */
  async #send(event: EventRecord): Promise<boolean> {
    const { namespace } = this.#queue
    const envelope = {
      timestamp: timestampFromMs(event.atMs),
      namespace,
      topic: event.topic,
      event: { typeUrl: event.type, value: Buffer.from(event.value, 'base64') },
    }
    try {
      this.#client ??= this.#connect()
      await this.#client.unary(
        Events.method.forward,
        { envelope },
        { timeoutMs: CALL_TIMEOUT_MS, metadata: { 'containerd-namespace-ttrpc': namespace } },
      )
      return true
    } catch (error) {
      if (error instanceof RpcError && error.code === 'ERR_RPC_STATUS') return true
      this.#client?.close()
      this.#client = undefined
      return false
    }
  }

  #connect(): TtrpcClient {
    const socket = connect({ path: this.#queue.address, allowHalfOpen: true })
    return new TtrpcClient(byteStreamFromDuplex(socket))
  }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer)
        resolve()
      },
      { once: true },
    )
  })
}
