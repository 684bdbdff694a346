/**
 * The agent's service as the host calls it. A refusal arrives as a stable code and the id under which the tenant, and
 * nobody else, finds the reason.
 */
import type { DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import { AGENT_MAX_MESSAGE_BYTES, AGENT_RPC_PORT, Agent, refusalOf } from '#protocol/agent-service'
import type { ByteStream } from '#protocol/byte-stream'
import type {
  ContainerInfo,
  CreateContainerRequestSchema,
  CreateContainerResponse,
  Event,
  ExecProcessRequestSchema,
  GetStatsResponse,
  GetStatusResponse,
  OpenStreamRequestSchema,
  ResourcesSchema,
  SealedReason,
  SetVolumeRequestSchema,
  StartSandboxRequestSchema,
  WaitProcessResponse,
} from '#protocol/gen/agent_pb'
import { laterStream } from '#protocol/later-stream'
import { byteStreamFromDuplex } from '#protocol/node/duplex-stream'
import { type CallOptions, type Method, TtrpcClient } from '#protocol/ttrpc/client'
import { RpcError } from '#protocol/ttrpc/status'
import { GuestRefusalError } from './guest-refusal.ts'
import { connectVsock } from './vsock.ts'

export { GuestRefusalError } from './guest-refusal.ts'

/** A process of a container: its first one when `execId` is absent. */
export interface ProcessName {
  readonly containerId: string
  readonly execId?: string
}

/** Time limits of calls that the agent answers from memory, and of those that pull or attest. Milliseconds. */
const QUICK_MS = 60_000
const LONG_MS = 60 * 60_000
/** Between two tries to reach a guest that stands still. Milliseconds. */
const RETRY_MS = 500

export class AgentClient {
  readonly #rpc: TtrpcClient

  constructor(rpc: TtrpcClient) {
    this.#rpc = rpc
  }

  /** @throws UnavailableError ERR_VSOCK_CONNECT, ERR_VSOCK_TIMEOUT */
  static async connect(vsock: string): Promise<AgentClient> {
    return AgentClient.#over(byteStreamFromDuplex(await connectVsock(vsock, AGENT_RPC_PORT)))
  }

  /**
   * For a guest that stands still: calls wait for the connection, within their own time limits. `isGone` ends the tries to
   * make one.
   */
  static connectLater(vsock: string, isGone: () => Promise<boolean>): AgentClient {
    return AgentClient.#over(laterStream(reach(vsock, isGone)))
  }

  static #over(stream: ByteStream): AgentClient {
    return new AgentClient(new TtrpcClient(stream, { maxMessageBytes: AGENT_MAX_MESSAGE_BYTES }))
  }

  /** Resolves when the connection is gone. */
  get closed(): Promise<void> {
    return this.#rpc.closed
  }

  getStatus(options: CallOptions = {}): Promise<GetStatusResponse> {
    return this.#call(Agent.method.getStatus, {}, { timeoutMs: QUICK_MS, ...options })
  }

  /** Reasons of refusals after a sequence number, each sealed to the tenant's key; empty when there are no more. */
  async getReasons(after: bigint): Promise<readonly SealedReason[]> {
    const { reasons } = await this.#call(Agent.method.getReasons, { after }, { timeoutMs: QUICK_MS })
    return reasons
  }

  /** Events after sequence number `after`; goes on until the connection ends or the signal fires. */
  watchEvents(after = 0n, options: CallOptions = {}): AsyncIterable<Event> {
    return this.#rpc.serverStream(Agent.method.watchEvents, { after }, options)
  }

  async startSandbox(
    request: MessageInitShape<typeof StartSandboxRequestSchema>,
    options: CallOptions = {},
  ): Promise<void> {
    await this.#call(Agent.method.startSandbox, request, { timeoutMs: LONG_MS, ...options })
  }

  createContainer(
    request: MessageInitShape<typeof CreateContainerRequestSchema>,
    options: CallOptions = {},
  ): Promise<CreateContainerResponse> {
    return this.#call(Agent.method.createContainer, request, { timeoutMs: LONG_MS, ...options })
  }

  async startContainer(containerId: string): Promise<void> {
    await this.#call(Agent.method.startContainer, { containerId }, { timeoutMs: QUICK_MS })
  }

  async exec(request: MessageInitShape<typeof ExecProcessRequestSchema>): Promise<void> {
    await this.#call(Agent.method.execProcess, request, { timeoutMs: QUICK_MS })
  }

  /** @param signal number, as the guest's Linux counts them */
  async signal(process: ProcessName, signal: number, options: { readonly all?: boolean } = {}): Promise<void> {
    await this.#call(
      Agent.method.signalProcess,
      { ...process, signal, all: options.all ?? false },
      { timeoutMs: QUICK_MS },
    )
  }

  /** Waits as long as it takes. */
  wait(process: ProcessName, options: CallOptions = {}): Promise<WaitProcessResponse> {
    return this.#call(Agent.method.waitProcess, process, options)
  }

  async resize(process: ProcessName, columns: number, rows: number): Promise<void> {
    await this.#call(Agent.method.resizeTerminal, { ...process, columns, rows }, { timeoutMs: QUICK_MS })
  }

  async delete(process: ProcessName): Promise<void> {
    await this.#call(Agent.method.deleteContainer, process, { timeoutMs: QUICK_MS })
  }

  async listContainers(): Promise<readonly ContainerInfo[]> {
    const { containers } = await this.#call(Agent.method.listContainers, {}, { timeoutMs: QUICK_MS })
    return containers
  }

  getStats(containerId: string): Promise<GetStatsResponse> {
    return this.#call(Agent.method.getStats, { containerId }, { timeoutMs: QUICK_MS })
  }

  /** Limits that are 0 stay as they are. */
  async update(containerId: string, resources: MessageInitShape<typeof ResourcesSchema>): Promise<void> {
    await this.#call(Agent.method.updateContainer, { containerId, resources }, { timeoutMs: QUICK_MS })
  }

  async pause(containerId: string, paused: boolean): Promise<void> {
    await this.#call(Agent.method.pauseContainer, { containerId, paused }, { timeoutMs: QUICK_MS })
  }

  /** The content of a volume, in messages of which the first names it. */
  async setVolume(messages: Iterable<MessageInitShape<typeof SetVolumeRequestSchema>>): Promise<void> {
    await told(this.#rpc.clientStream(Agent.method.setVolume, messages, { timeoutMs: QUICK_MS }))
  }

  /** A ticket for `redeemTicket`. */
  async openStream(request: MessageInitShape<typeof OpenStreamRequestSchema>): Promise<string> {
    const { ticket } = await this.#call(Agent.method.openStream, request, { timeoutMs: QUICK_MS })
    return ticket
  }

  async shutdown(options: CallOptions = {}): Promise<void> {
    await this.#call(Agent.method.shutdown, {}, { timeoutMs: QUICK_MS, ...options })
  }

  close(): void {
    this.#rpc.close()
  }

  async #call<Input extends DescMessage, Output extends DescMessage>(
    method: Method<'unary', Input, Output>,
    request: MessageInitShape<Input>,
    options: CallOptions,
  ): Promise<MessageShape<Output>> {
    return told(this.#rpc.unary(method, request, options))
  }
}

async function reach(vsock: string, isGone: () => Promise<boolean>): Promise<ByteStream> {
  for (;;) {
    try {
      return byteStreamFromDuplex(await connectVsock(vsock, AGENT_RPC_PORT, { timeoutMs: QUICK_MS }))
    } catch (error) {
      if (await isGone()) throw error
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
    }
  }
}

/** What a call answers; a refusal of the guest as such. */
async function told<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    const refusal = refusalOf(error)
    if (refusal === undefined || !(error instanceof RpcError)) throw error
    throw new GuestRefusalError(refusal.code, error, refusal.correlationId)
  }
}
