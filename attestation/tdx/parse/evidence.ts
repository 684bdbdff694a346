/**
 * TDX evidence in the shapes in which it travels: a bare quote; JSON of CoCo's attesters (`quote`, `cc_eventlog`, of earlier
 * versions also `aa_eventlog`); the
 * `outblob` of configfs-tsm as JSON.
 */
import { MalformedError } from '#protocol/errors'
import { inOneGo, type Steps } from '../../evidence/steps.ts'
import { decodeText, utf8Text } from '../../evidence/text-encoding.ts'
import { type EventLog, eventLogSteps, parseEventLog } from '../../tpm/parse/event-log.ts'
import { parseQuote, type Quote } from './quote.ts'
import { parseRuntimeLog, type RuntimeLog } from './runtime-log.ts'

export interface TdxEvidence {
  readonly quote: Quote
  /** The firmware's log (ACPI table CCEL), undefined when it did not come along. */
  readonly eventLog: EventLog | undefined
  /** What earlier agents of CoCo say that they measured into RTMR3. */
  readonly runtimeLog: RuntimeLog | undefined
}

const MAX_TEXT_CHARS = 8 * 1024 * 1024

/**
 * Bytes of a quote, text of JSON, or JSON that was read already.
 *
 * Throws `MalformedError` ERR_TDX_EVIDENCE or ERR_RUNTIME_LOG, and what quotes (`QuoteError`) and event logs (`EventLogError`) are refused
 * with.
 */
export function parseTdxEvidence(evidence: unknown): TdxEvidence {
  return inOneGo(tdxEvidenceSteps(evidence))
}

/** Throws as `parseTdxEvidence`, at whichever step. */
export function* tdxEvidenceSteps(evidence: unknown): Steps<TdxEvidence> {
  if (evidence instanceof Uint8Array) {
    const text = evidence[0] === 0x7b ? utf8Text(evidence) : undefined
    return text === undefined ? tdxEvidenceOf(evidence, undefined) : yield* fromJson(readJson(text))
  }
  return yield* fromJson(typeof evidence === 'string' ? readJson(evidence) : evidence)
}

/** A quote that came apart from its log, as beside Azure's TPM quote. Throws as `parseTdxEvidence`. */
export function tdxEvidenceOf(quote: Uint8Array, eventLog: Uint8Array | undefined): TdxEvidence {
  return {
    quote: parseQuote(quote),
    eventLog: eventLog === undefined ? undefined : parseEventLog(eventLog),
    runtimeLog: undefined,
  }
}

function* fromJson(value: unknown): Steps<TdxEvidence> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed('an object is needed')
  const members: Readonly<Record<string, unknown>> = Object.fromEntries(Object.entries(value))
  const quote = members.quote ?? members.outblob
  if (quote === undefined) throw malformed('there is no member "quote"')
  const log = members.cc_eventlog
  const quoteBytes = readBytes(quote, 'quote')
  const logBytes = isAbsent(log) ? undefined : readBytes(log, 'cc_eventlog')
  const alone = tdxEvidenceOf(quoteBytes, undefined)
  const evidence = { ...alone, eventLog: logBytes === undefined ? undefined : yield* eventLogSteps(logBytes) }
  const runtimeLog = members.aa_eventlog
  if (isAbsent(runtimeLog)) return evidence
  if (typeof runtimeLog !== 'string') throw malformed('aa_eventlog: text is needed')
  return { ...evidence, runtimeLog: parseRuntimeLog(runtimeLog) }
}

/** Attesters whose guest has no log leave it out, or write null or nothing. */
function isAbsent(log: unknown): boolean {
  return log === undefined || log === null || log === ''
}

/** Base64 in either alphabet, hexadecimal, or an array of numbers. */
function readBytes(value: unknown, member: string): Uint8Array {
  if (typeof value === 'string' && value.length <= MAX_TEXT_CHARS) {
    const decoded = decodeText(value)
    if (decoded !== undefined) return decoded.bytes
  }
  if (Array.isArray(value) && value.length <= MAX_TEXT_CHARS && value.every(isByte)) return Uint8Array.from(value)
  throw malformed(`${member}: bytes in base64 are needed`)
}

function isByte(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 255
}

function readJson(text: string): unknown {
  if (text.length > 2 * MAX_TEXT_CHARS) throw malformed(`${text.length} characters`)
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new MalformedError('ERR_TDX_EVIDENCE', 'TDX evidence: not JSON', { cause })
  }
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_TDX_EVIDENCE', `TDX evidence: ${why}`)
}
