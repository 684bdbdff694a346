/** What kind of file is this evidence? Said in the result, so that nobody wonders how it was read. */
import { MalformedError } from '#protocol/errors'
import { parsePem } from '../x509/pem.ts'
import { decodeText, utf8Text } from './text-encoding.ts'

/** Evidence without its outermost text encoding: what the module of a TEE reads. */
export type EvidenceInput =
  | { readonly form: 'bytes'; readonly bytes: Uint8Array }
  | { readonly form: 'json'; readonly value: unknown; readonly text: string }

export type EvidenceEncoding = 'raw' | 'hex' | 'base64' | 'base64url' | 'pem' | 'json'

export interface DetectedEvidence {
  readonly encoding: EvidenceEncoding
  readonly input: EvidenceInput
}

/** The largest evidence there is: a quote with its event log and certificates, as JSON numbers. */
export const MAX_EVIDENCE_BYTES = 16_777_216

/** Labels of PEM-like blocks that hold certificates: a file of those is collateral, not evidence. */
const NOT_EVIDENCE = /CERTIFICATE|CRL|KEY/

/**
 * Raw binary, hexadecimal, base64, one PEM-like block, or JSON; JSON that is itself only a string is read once more.
 *
 * Throws `MalformedError` ERR_EVIDENCE for an empty file, one that is too large, or a text that is none of these.
 */
export function detectEvidence(bytes: Uint8Array): DetectedEvidence {
  if (bytes.length === 0) throw malformed('the file is empty')
  if (bytes.length > MAX_EVIDENCE_BYTES)
    throw malformed(`${bytes.length} bytes, at most ${MAX_EVIDENCE_BYTES} are read`)
  const text = utf8Text(bytes)?.trim()
  if (text === undefined || text === '') return { encoding: 'raw', input: { form: 'bytes', bytes } }
  if (/^[{["]/.test(text)) return readJson(text)
  if (text.includes('-----BEGIN ')) return { encoding: 'pem', input: { form: 'bytes', bytes: onlyBlock(text) } }
  const decoded = decodeText(text)
  if (decoded === undefined) throw malformed('a text that is neither JSON, PEM, hexadecimal nor base64')
  const inner = utf8Text(decoded.bytes)?.trim()
  // Base64 of JSON is how evidence travels in HTTP bodies.
  if (inner?.startsWith('{') === true) return { ...readJson(inner), encoding: decoded.encoding }
  return { encoding: decoded.encoding, input: { form: 'bytes', bytes: decoded.bytes } }
}

/** A document inside of another one. Throws `MalformedError` ERR_EVIDENCE unless it is an object. */
export function readEvidenceJson(text: string): EvidenceInput {
  const { input } = readJson(text)
  if (input.form !== 'json') throw malformed('an object is needed')
  return input
}

function readJson(text: string): DetectedEvidence {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new MalformedError('ERR_EVIDENCE', 'evidence: a text that begins like JSON and is none', { cause })
  }
  if (isByteArray(value)) return { encoding: 'json', input: { form: 'bytes', bytes: Uint8Array.from(value) } }
  if (typeof value !== 'string') return { encoding: 'json', input: { form: 'json', value, text } }
  if (value.trim().startsWith('"')) throw malformed('JSON within JSON within JSON')
  return { ...detectEvidence(new TextEncoder().encode(value)), encoding: 'json' }
}

function isByteArray(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((item) => typeof item === 'number' && Number.isInteger(item) && item >= 0 && item <= 255)
  )
}

function onlyBlock(text: string): Uint8Array {
  const [block, ...more] = parsePem(text)
  if (block === undefined || more.length > 0) throw malformed('one PEM block is needed')
  if (NOT_EVIDENCE.test(block.label)) {
    throw new MalformedError('ERR_EVIDENCE', `evidence: a PEM block of ${block.label} is no evidence`, {
      hint: 'Certificates and revocation lists belong into the folder of --collateral.',
    })
  }
  return block.bytes
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_EVIDENCE', `evidence: ${why}`)
}
