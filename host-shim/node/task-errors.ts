/** Errors as containerd hears them: a status of the class it expects, a text that names code and remedy. */
import { CaissonError, errorText, UsageError } from '#protocol/errors'
import { RpcError, type Status, StatusCode } from '#protocol/ttrpc/status'
import { GuestRefusalError } from '../pod/agent-client.ts'

export function taskStatus(error: unknown): Status {
  if (error instanceof RpcError) return error.status
  const message = error instanceof CaissonError ? describe(error) : errorText(error)
  return { code: codeOf(error), message }
}

function codeOf(error: unknown): number {
  if (error instanceof GuestRefusalError) {
    // What the guest does not know is gone.
    if (error.code === 'ERR_CONTAINER_UNKNOWN' || error.code === 'ERR_PROCESS_UNKNOWN') return StatusCode.notFound
    if (error.code === 'ERR_PROCESS_ENDED') return StatusCode.notFound
    if (error.code === 'ERR_CONTAINER_STATE') return StatusCode.failedPrecondition
    return error.kind === 'denied' ? StatusCode.permissionDenied : StatusCode.unknown
  }
  return error instanceof UsageError ? StatusCode.invalidArgument : StatusCode.unknown
}

/** Goes into events of the pod, where its author reads it. */
function describe(error: CaissonError): string {
  const hint = error.hint === undefined ? '' : ` (${error.hint})`
  return error.message.includes(error.code) ? `${error.message}${hint}` : `${error.code}: ${error.message}${hint}`
}
