/**
 * Status codes of RPC answers (google.rpc.Code, the same numbers as gRPC's) and the errors that carry them.
 */
import { CaissonError } from '../errors.ts'

export const StatusCode = {
  ok: 0,
  canceled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  dataLoss: 15,
  unauthenticated: 16,
} as const

export interface Status {
  /** A value of `StatusCode`, or one this version does not know. */
  readonly code: number
  readonly message: string
}

/**
 * A call was answered with a status other than OK, or could not be made or finished. `ERR_RPC_STATUS`: the peer
 * answered so; `ERR_RPC_TIMEOUT`, `ERR_RPC_CANCELED`, `ERR_RPC_CLOSED`, `ERR_RPC_PROTOCOL`, `ERR_RPC_TOO_LARGE`: found
 * on this side.
 */
export class RpcError extends CaissonError<RpcErrorCode> {
  readonly status: Status

  constructor(code: RpcErrorCode, status: Status, options: { hint?: string | undefined; cause?: unknown } = {}) {
    super(code, status.message, options)
    this.status = status
  }
}

export type RpcErrorCode =
  | 'ERR_RPC_STATUS'
  | 'ERR_RPC_TIMEOUT'
  | 'ERR_RPC_CANCELED'
  | 'ERR_RPC_CLOSED'
  | 'ERR_RPC_PROTOCOL'
  | 'ERR_RPC_TOO_LARGE'

/** What a handler throws to answer with a status of its choice. The message goes to the peer as it is. */
export function rpcStatus(code: Exclude<keyof typeof StatusCode, 'ok'>, message: string): RpcError {
  return new RpcError('ERR_RPC_STATUS', { code: StatusCode[code], message })
}
