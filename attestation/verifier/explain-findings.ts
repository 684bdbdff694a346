/**
 * What an appraisal found, as the tenant reads it in `caisson verifier explain`: one sentence why, and each comparison with
 * what was expected, what was there, and what to do.
 */
import { SNP_TCB_COMPONENTS } from '../appraisal/policy.ts'
import type { Appraisal, Claims, Finding } from '../evidence/verdict.ts'
import type { ClaimCheck } from '../store/attestation-log.ts'
import type { ReferenceResult } from './reference-match.ts'

export interface Explanation {
  /** Of docs/errors.md. */
  readonly code: string
  readonly reason: string
  readonly hint: string | undefined
  readonly checks: readonly ClaimCheck[]
}

export interface ExplainInput {
  readonly appraisal: Appraisal
  readonly initdata: ClaimCheck | undefined
  readonly reference: ReferenceResult | undefined
}

/** Genuine evidence of a guest that the tenant does not want as it is. */
const POLICY_CODES: ReadonlySet<string> = new Set([
  'debug',
  'emulated',
  'migratable',
  'profiling',
  'sept_ve',
  'service_td',
  'unjudged_attributes',
  'tcb_status',
  'host_requested',
  'weak_hash',
  'secure_boot_off',
])
const MAX_SENTENCES = 4
const MAX_VALUE = 400

/** Call it only for evidence that is not accepted. */
export function explainFindings({ appraisal, initdata, reference }: ExplainInput): Explanation {
  const { findings, claims } = appraisal
  const sorted = findings.toSorted((a, b) => rank(a) - rank(b))
  const checks = sorted.map((finding) => checkOf(finding, claims))
  const [first] = sorted
  const mismatch = reference?.matched === false ? reference : undefined
  const serious = first !== undefined && rank(first) <= RANK.unverified
  if (serious || (first !== undefined && initdata?.ok !== false && mismatch === undefined)) {
    const same = sorted.filter((finding) => codeOf(finding) === codeOf(first))
    const sentences = [...new Set(same.map((finding) => sentenceOf(finding, claims)))]
    const more = sentences.length > MAX_SENTENCES ? `; and ${sentences.length - MAX_SENTENCES} more` : ''
    const reason = `${sentences.slice(0, MAX_SENTENCES).join('; ')}${more}`
    return { code: codeOf(first), reason, hint: first.remedy, checks }
  }
  if (initdata?.ok === false) {
    const reason = `the initdata of the answer is not what the guest was started with (${initdata.claim})`
    return { code: 'ERR_INITDATA_MISMATCH', reason, hint: initdata.remedy, checks }
  }
  if (mismatch !== undefined) return { code: mismatch.code, reason: mismatch.reason, hint: mismatch.hint, checks }
  return {
    code: 'ERR_EVIDENCE_REFUSED',
    reason: 'the evidence does not add up to an affirming result',
    hint: 'See the trustworthiness vector of `caisson evidence verify`.',
    checks,
  }
}

const RANK = { nonce: 0, unverified: 1, refused: 2, unchecked: 3 } as const

function rank({ code, severity }: Finding): number {
  if (code === 'nonce_mismatch') return RANK.nonce
  if (isPolicy(code)) return RANK.refused
  return severity === 'contraindicated' ? RANK.unverified : RANK.unchecked
}

function isPolicy(code: string): boolean {
  return POLICY_CODES.has(code) || code.startsWith('policy_')
}

function codeOf(finding: Finding): string {
  switch (rank(finding)) {
    case RANK.nonce:
      return 'ERR_NONCE_MISMATCH'
    case RANK.unverified:
      return 'ERR_EVIDENCE_UNVERIFIED'
    case RANK.refused:
      return 'ERR_EVIDENCE_REFUSED'
    default:
      return 'ERR_EVIDENCE_UNCHECKED'
  }
}

function checkOf(finding: Finding, claims: Claims): ClaimCheck {
  const { code, expected, found, remedy } = finding
  return {
    claim: `${code}: ${sentenceOf(finding, claims)}`,
    expected: shown(expected),
    found: shown(found),
    ok: false,
    remedy,
  }
}

/** "TCB: microcode 0xd1 < 0xd3 required": levels as firmware release notes write them. */
function sentenceOf({ code, message, expected, found }: Finding, claims: Claims): string {
  if (code === 'policy_minimum') {
    const component = SNP_TCB_COMPONENTS.find((name) => message.includes(`the ${name} of`))
    const least = Number(/^at least (\d+)$/.exec(expected ?? '')?.[1])
    if (component !== undefined && Number.isInteger(least) && /^\d+$/.test(found ?? '')) {
      return `TCB: ${component} ${hex(Number(found))} < ${hex(least)} required`
    }
  }
  if (code === 'tcb_status') {
    const date = claims.tcb_date
    return `TCB: ${message}${typeof date === 'string' ? `, level of ${date.slice(0, 10)}` : ''}`
  }
  return message
}

function hex(level: number): string {
  return `0x${level.toString(16).padStart(2, '0')}`
}

function shown(value: string | undefined): string {
  return value === undefined ? '-' : value.length > MAX_VALUE ? `${value.slice(0, MAX_VALUE)}…` : value
}

const FACTS: readonly (readonly [fact: string, claim: string])[] = [
  ['chip-id', 'chip_id'],
  ['measurement', 'measurement'],
  ['product', 'product'],
  ['fmspc', 'fmspc'],
  ['tcb-status', 'tcb_status'],
]

/** For the tenant's record, and the audit log's `chip-id`. */
export function hardwareFacts(claims: Claims, policyId: string): Record<string, string> {
  const named = FACTS.flatMap(([fact, claim]) => {
    const value = claims[claim]
    return typeof value === 'string' ? [[fact, value]] : []
  })
  const { tcb, advisory_ids: advisories } = claims
  return {
    policy: policyId,
    ...Object.fromEntries(named),
    ...(typeof tcb === 'object' && tcb !== null ? { tcb: JSON.stringify(tcb) } : {}),
    ...(Array.isArray(advisories) && advisories.length > 0 ? { advisories: advisories.join(', ') } : {}),
  }
}

/** All but the event log, which would only make the header longer that the token travels in. */
export function tokenClaims(claims: Claims): Claims {
  return Object.fromEntries(Object.entries(claims).filter(([name]) => name !== 'events'))
}
