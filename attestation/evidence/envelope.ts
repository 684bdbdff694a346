/**
 * Messages that carry evidence between the parts of Confidential Containers: people save those as often as the evidence itself.
 *
 * - `kbs-attestation`: the client's answer to a challenge of the KBS protocol: `{tee-pubkey, tee-evidence}`, where
 *   `tee-evidence` is the evidence, a string that holds it, or `{primary_evidence, additional_evidence}`; or that alone;
 * - `attestation-service-request`: `{verification_requests: [{tee, evidence}]}` with one request, whose evidence is base64url.
 *
 * Keys, nonces and runtime data of the message are not judged: `--nonce` says what the evidence must be bound to.
 */
import { MalformedError } from '#protocol/errors'
import { type EvidenceInput, readEvidenceJson } from './detect.ts'
import { decodeText, utf8Text } from './text-encoding.ts'

export type EnvelopeKind = 'kbs-attestation' | 'attestation-service-request'

export interface OpenedEvidence {
  readonly input: EvidenceInput
  /** Undefined: the evidence came as it is. */
  readonly envelope: EnvelopeKind | undefined
}

/** Throws `MalformedError` ERR_EVIDENCE for a message without evidence, or with several. */
export function openEnvelope(input: EvidenceInput): OpenedEvidence {
  if (input.form === 'bytes') return { input, envelope: undefined }
  const members = exactMembers(input.text)
  const request = members['verification_requests']
  if (request !== undefined) return { input: fromRequests(request), envelope: 'attestation-service-request' }
  const evidence = members['tee-evidence'] ?? members['primary_evidence']
  if (evidence === undefined) return { input, envelope: undefined }
  return { input: fromAttestation(evidence), envelope: 'kbs-attestation' }
}

function fromAttestation(evidence: unknown): EvidenceInput {
  const inner = typeof evidence === 'string' ? exactMembers(evidence) : evidence
  const primary = isObject(inner) ? inner['primary_evidence'] : undefined
  return inputOf(primary ?? inner)
}

function fromRequests(requests: unknown): EvidenceInput {
  const [request, ...more] = Array.isArray(requests) ? (requests as unknown[]) : []
  if (!isObject(request) || more.length > 0) throw malformed('one verification request is needed')
  const { evidence } = request
  if (typeof evidence !== 'string') return inputOf(evidence)
  const bytes = decodeText(evidence)?.bytes
  const text = bytes === undefined ? undefined : utf8Text(bytes)
  return inputOf(text ?? evidence)
}

/** A value inside of a message as the document that it is. */
function inputOf(value: unknown): EvidenceInput {
  if (typeof value === 'string') return readEvidenceJson(value)
  if (!isObject(value)) throw malformed('the message holds no evidence')
  return readEvidenceJson(exactText(value))
}

/** Whole numbers beyond 2⁵³ stay what they are: reports have fields of 64 bits, and are signed. */
function exactMembers(text: string): Readonly<Record<string, unknown>> {
  const exact = (_name: string, value: unknown, context?: { readonly source?: string }): unknown =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d{1,20}$/.test(context?.source ?? '')
      ? BigInt(context?.source ?? '')
      : value
  try {
    const value: unknown = JSON.parse(text, exact)
    return isObject(value) ? value : {}
  } catch (cause) {
    throw new MalformedError('ERR_EVIDENCE', 'evidence: a message that is not JSON', { cause })
  }
}

function exactText(value: unknown): string {
  const { rawJSON } = JSON as unknown as { readonly rawJSON: (text: string) => unknown }
  return JSON.stringify(value, (_name, member: unknown) =>
    typeof member === 'bigint' ? rawJSON(String(member)) : member,
  )
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function malformed(why: string): MalformedError {
  return new MalformedError('ERR_EVIDENCE', `evidence: ${why}`)
}
