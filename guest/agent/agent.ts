/** The agent: two vsock listeners over one sandbox. */
import { AGENT_MAX_MESSAGE_BYTES, AGENT_RPC_PORT, AGENT_STREAM_PORT, Agent } from '#protocol/agent-service'
import { TtrpcServer } from '#protocol/ttrpc/server'
import type { ByteStream, Platform } from '../platform/platform.ts'
import { EventLog } from './events.ts'
import { MAX_RPC_CONNECTIONS, MAX_RPC_IN_FLIGHT_BYTES, MAX_RPC_STREAMS } from './limits.ts'
import { RawStreamServer } from './raw-streams.ts'
import { ReasonLog, Refusals } from './reasons.ts'
import { Sandbox, type SandboxOptions } from './sandbox.ts'
import { agentService } from './service.ts'
import { TicketOffice } from './tickets.ts'

/** Between the answer to Shutdown and the end, so that the answer gets through. */
const FAREWELL_MS = 100

export interface AgentOptions extends Pick<SandboxOptions, 'imageTools' | 'createVerifier'> {
  readonly platform: Platform
  readonly version: string
}

/** Listens, says so on the console, and serves until the machine is switched off. */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { platform, version } = options
  const { clock, crypto } = platform
  const reasons = new ReasonLog()
  const refusals = new Refusals(reasons, crypto, () => clock.now())
  const events = new EventLog(() => clock.monotonicMs())
  const tickets = new TicketOffice(crypto, () => clock.monotonicMs())
  const sandbox = new Sandbox({ ...options, events, refusals, reasons })
  const rpc = new TtrpcServer({
    maxMessageBytes: AGENT_MAX_MESSAGE_BYTES,
    maxStreams: MAX_RPC_STREAMS,
    maxInFlightBytes: MAX_RPC_IN_FLIGHT_BYTES,
  })
  const onShutdown = () => {
    void clock.sleep(FAREWELL_MS).then(() => platform.powerOff())
  }
  rpc.register(Agent, agentService({ platform, sandbox, events, refusals, reasons, tickets, version, onShutdown }))
  const streams = new RawStreamServer(tickets, clock)

  const rpcListener = platform.listenVsock(AGENT_RPC_PORT)
  const streamListener = platform.listenVsock(AGENT_STREAM_PORT)
  platform.consoleCode('agent-ready')
  await Promise.all([
    serveAll(rpcListener.connections, (stream) => rpc.serve(stream), MAX_RPC_CONNECTIONS),
    serveAll(streamListener.connections, (stream) => streams.serve(stream), Number.POSITIVE_INFINITY),
  ])
}

async function serveAll(
  connections: AsyncIterable<ByteStream>,
  serve: (stream: ByteStream) => Promise<void>,
  limit: number,
): Promise<void> {
  let open = 0
  for await (const stream of connections) {
    if (open >= limit) {
      stream.destroy()
      continue
    }
    open++
    void serve(stream).finally(() => {
      open--
    })
  }
}
