/**
 * A reason of a guest on its way to the tenant's verifier, inside the TLS connection that the guest itself authenticated.
 * The host carries it and cannot read it; its length is one of a few, so that it says little.
 */
import { MalformedError } from './errors.ts'
import { JsonFields } from './json-fields.ts'

export interface ReasonReport {
  /** The id that the host was given: 16 hexadecimal digits. */
  readonly correlationId: string
  readonly code: string
  /** What was asked for: "CreateContainer web". */
  readonly subject: string
  readonly message: string
  readonly hint: string | undefined
  /** The rule, when a policy said no. */
  readonly denial: { readonly field: string; readonly allowed: string; readonly asked: string } | undefined
  /** What was asked, as JSON of a `create` step of a file of cases; for denials of containers. */
  readonly request: string | undefined
}

/** Bytes of a whole report. */
export const MAX_REPORT_BYTES: number = 64 * 1024
/** Characters of each text but the request. */
const MAX_TEXT = 2048
/** Characters of a request; a longer one is left out. */
export const MAX_REPORTED_REQUEST: number = 32 * 1024
const STEP_BYTES = 4096
const CODE = /^ERR_[A-Z0-9_]{1,60}$/
const ID = /^[0-9a-f]{16}$/

/** UTF-8 JSON, filled up with spaces. Texts that are too long are cut, a request that is too long is left out. */
export function encodeReasonReport(report: ReasonReport): Uint8Array {
  const cut = (text: string): string => text.slice(0, MAX_TEXT).toWellFormed()
  const { denial, request, hint } = report
  const text = JSON.stringify({
    id: report.correlationId,
    code: report.code,
    subject: cut(report.subject),
    message: cut(report.message),
    ...(hint === undefined ? {} : { hint: cut(hint) }),
    ...(denial === undefined
      ? {}
      : { denial: { field: cut(denial.field), allowed: cut(denial.allowed), asked: cut(denial.asked) } }),
    ...(request === undefined || request.length > MAX_REPORTED_REQUEST ? {} : { request: request.toWellFormed() }),
  })
  const bytes = new TextEncoder().encode(text)
  // With characters of several bytes a request may still be too long.
  if (bytes.byteLength > MAX_REPORT_BYTES) return encodeReasonReport({ ...report, request: undefined })
  const padded = new Uint8Array(Math.ceil(bytes.byteLength / STEP_BYTES) * STEP_BYTES).fill(0x20)
  padded.set(bytes)
  return padded
}

/** @throws MalformedError ERR_REASON_REPORT */
export function parseReasonReport(text: string): ReasonReport {
  const limits = { code: 'ERR_REASON_REPORT', maxChars: MAX_REPORT_BYTES } as const
  const fields = JsonFields.parse(text, 'report', limits)
  const denial = fields.optionalObject('denial')
  const member = (from: JsonFields, name: string): string => from.string(name, MAX_TEXT)
  return {
    correlationId: matching(member(fields, 'id'), ID, 'id'),
    code: matching(member(fields, 'code'), CODE, 'code'),
    subject: member(fields, 'subject'),
    message: member(fields, 'message'),
    hint: fields.has('hint') ? member(fields, 'hint') : undefined,
    denial:
      denial === undefined
        ? undefined
        : { field: member(denial, 'field'), allowed: member(denial, 'allowed'), asked: member(denial, 'asked') },
    request: fields.has('request') ? fields.string('request', MAX_REPORTED_REQUEST) : undefined,
  }
}

function matching(text: string, pattern: RegExp, name: string): string {
  if (pattern.test(text)) return text
  throw new MalformedError('ERR_REASON_REPORT', `report.${name}: ${JSON.stringify(text.slice(0, 80))} has another form`)
}
