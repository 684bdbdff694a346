/** What the host is told when the guest says no. Apart from the client, so that printing it loads no protocol. */
import { CaissonError } from '#protocol/errors'
import { type RpcError, StatusCode } from '#protocol/ttrpc/status'

/** The guest said no. `code` is the guest's; the reason stays with the tenant under `correlationId`. */
export class GuestRefusalError extends CaissonError {
  readonly correlationId: string | undefined
  /** `denied`: the tenant's policy said no; `failed`: the guest could not, or something was not genuine. */
  readonly kind: 'denied' | 'failed'

  constructor(code: string, cause: RpcError, correlationId: string | undefined) {
    const denied = cause.status.code === StatusCode.permissionDenied
    super(code, `the guest ${denied ? 'refused' : 'failed'}: ${code}`, {
      hint:
        correlationId === undefined
          ? 'docs/errors.md explains the code'
          : `docs/errors.md explains the code; the tenant finds the reason under ${correlationId}`,
      cause,
    })
    this.correlationId = correlationId
    this.kind = denied ? 'denied' : 'failed'
  }
}
