/**
 * A reason of a guest on its way to the tenant's verifier, inside the TLS connection that the guest itself authenticated.
 * The host carries it and cannot read it; its length is one of a few, so that it says little.
 */
import { MalformedError } from './errors.ts'
import { JsonFields } from './json-fields.ts'
import { type RefusalReason, readReasonMembers, reasonMembers } from './refusal-reason.ts'

export interface ReasonReport extends RefusalReason {
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
  const { correlationId, request } = report
  const text = JSON.stringify({
    id: correlationId,
    ...reasonMembers(report, cut),
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
  const reason = readReasonMembers(fields, MAX_TEXT)
  matching(reason.code, CODE, 'code')
  return {
    ...reason,
    correlationId: matching(fields.string('id', MAX_TEXT), ID, 'id'),
    request: fields.has('request') ? fields.string('request', MAX_REPORTED_REQUEST) : undefined,
  }
}

function matching(text: string, pattern: RegExp, name: string): string {
  if (pattern.test(text)) return text
  throw new MalformedError('ERR_REASON_REPORT', `report.${name}: ${JSON.stringify(text.slice(0, 80))} has another form`)
}
