/**
 * One line for each request, for machines: JSON with members of our own choosing. Paths, headers, bodies, tokens and names
 * that strangers chose never get into it, so nothing secret does, and nobody writes lines of their own.
 */
import type { HttpExchange, HttpReply } from './http-listener.ts'
import type { Observation } from './metrics.ts'

export interface RequestLogLine {
  readonly time: string
  readonly route: string
  readonly status: number
  readonly ms: number
  /** Absent on the default tenant's paths, and where the name could be none. */
  readonly tenant?: string
  /** Of a refusal: where the tenant finds the reason. */
  readonly code?: string
  readonly correlationId?: string
}

const TENANT = /^[a-z0-9][a-z0-9-]{0,62}$/
const CODE = /^ERR_[A-Z0-9_]{1,64}$/
const ID = /^[0-9a-f]{24}$/

export function requestLogLine(
  { segments }: Pick<HttpExchange, 'segments'>,
  { body }: HttpReply,
  { route, status, seconds }: Observation,
  at: Date,
): RequestLogLine {
  const [first, tenant = ''] = segments
  const problem = status >= 400 && body !== undefined && !(body instanceof Uint8Array) ? { ...body } : {}
  const text = (name: string, form: RegExp): string | undefined => {
    const value: unknown = Object.getOwnPropertyDescriptor(problem, name)?.value
    return typeof value === 'string' && form.test(value) ? value : undefined
  }
  const [code, correlationId] = [text('code', CODE), text('correlation_id', ID)]
  return {
    time: at.toISOString(),
    route,
    status,
    ms: Math.round(seconds * 10_000) / 10,
    ...(first === 't' && TENANT.test(tenant) ? { tenant } : {}),
    ...(code === undefined ? {} : { code }),
    ...(correlationId === undefined ? {} : { correlationId }),
  }
}
