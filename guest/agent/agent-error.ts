/**
 * The agent's own refusals: a request that is malformed, comes at the wrong time, names something unknown or exceeds a
 * limit. `status` is the family that the host sees besides the code.
 */
import { CaissonError } from '#protocol/errors'

export type AgentStatus = 'invalidArgument' | 'failedPrecondition' | 'notFound' | 'unavailable'

export class AgentError extends CaissonError {
  readonly status: AgentStatus

  constructor(status: AgentStatus, code: string, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(code, message, options)
    this.status = status
  }
}

export function malformedRequest(field: string, problem: string): AgentError {
  return new AgentError('invalidArgument', 'ERR_REQUEST_MALFORMED', `${field} ${problem}`)
}

export function limitExceeded(what: string, limit: number): AgentError {
  return new AgentError('failedPrecondition', 'ERR_LIMIT', `${what}: at most ${limit}`)
}
