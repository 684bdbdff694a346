/**
 * What host and guest agree on besides the messages of `proto/agent.proto`: ports, limits, the ticket line of raw streams
 * and how a refusal is named in an RPC status.
 */
import { RpcError, StatusCode } from './ttrpc/status.ts'

export { Agent } from './gen/agent_pb.ts'

/** vsock ports of the guest. */
export const AGENT_RPC_PORT = 1024
export const AGENT_STREAM_PORT = 1025

/** Largest RPC message in either direction; bulk bytes have streams of their own. */
export const AGENT_MAX_MESSAGE_BYTES: number = 256 * 1024

/** First line of a raw stream, host to guest. The guest answers `STREAM_ACCEPTED` or closes. */
export function ticketLine(ticket: string): string {
  return `TICKET ${ticket}\n`
}

/** Bytes of a whole ticket line; the guest reads no more before deciding. */
export const TICKET_LINE_BYTES: number = 7 + 32 + 1

export const STREAM_ACCEPTED = 'OK\n'

const REFUSAL = /^(ERR_[A-Z0-9_]{1,60})(?: ([0-9a-f-]{8,36}))?$/

/** The only thing a refused host learns: a stable code and the id under which the tenant finds the reason. */
export interface Refusal {
  readonly code: string
  readonly correlationId: string | undefined
}

/** What a handler in the guest throws. The status tells the family, the message carries code and id. */
export function refusalError(
  status: 'permissionDenied' | 'failedPrecondition' | 'invalidArgument' | 'notFound' | 'unavailable' | 'internal',
  refusal: Refusal,
): RpcError {
  const message = refusal.correlationId === undefined ? refusal.code : `${refusal.code} ${refusal.correlationId}`
  return new RpcError('ERR_RPC_STATUS', { code: StatusCode[status], message })
}

/** Reads a refusal out of an error of a call; undefined when the error is of another kind. */
export function refusalOf(error: unknown): Refusal | undefined {
  if (!(error instanceof RpcError) || error.code !== 'ERR_RPC_STATUS') return undefined
  const match = REFUSAL.exec(error.status.message)
  return match?.[1] === undefined ? undefined : { code: match[1], correlationId: match[2] }
}
