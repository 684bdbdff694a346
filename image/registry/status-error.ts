import { UnavailableError } from '#protocol/errors'

/** A registry answered with a status that was not asked for. Code ERR_REGISTRY_STATUS. */
export class RegistryStatusError extends UnavailableError {
  readonly status: number
  /** What the registry asks to be spared for, milliseconds. */
  readonly retryAfterMs: number | undefined

  constructor(message: string, status: number, retryAfter: string | undefined) {
    super('ERR_REGISTRY_STATUS', message)
    this.status = status
    this.retryAfterMs = parseRetryAfter(retryAfter)
  }
}

/** RFC 9110 10.2.3, seconds only: dates need a clock that both sides agree on. At most an hour. */
function parseRetryAfter(text: string | undefined): number | undefined {
  return text !== undefined && /^[0-9]{1,9}$/.test(text) ? Math.min(Number(text), 3600) * 1000 : undefined
}
