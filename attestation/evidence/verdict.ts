/**
 * The judgement of one piece of evidence, whatever the TEE: what it claims, what was found wrong or left unchecked, and
 * what that adds up to. Modules of one TEE return an `Appraisal`; the policy may add findings; `verdictOf` adds up.
 */
import { statusOf, type TrustVector } from '../token/trust-vector.ts'

export type Tee = 'snp' | 'tdx' | 'tpm'

export type Verdict = 'affirming' | 'warning' | 'contraindicated'

/** One thing that keeps evidence from being affirmed. */
export interface Reason {
  /** Stable, lower case with underscores: API for callers, listed in docs/claims.md. */
  readonly code: string
  readonly message: string
  /** What would have been accepted, and what was there; absent where nothing is compared. */
  readonly expected?: string
  readonly found?: string
  readonly remedy: string
}

export interface Finding extends Reason {
  /**
   * `warning`: unproven (something stayed unchecked, or holds with a known weakness). `contraindicated`: disproven, or the
   * policy refuses it.
   */
  readonly severity: 'warning' | 'contraindicated'
}

export type ClaimValue =
  | string
  | number
  | boolean
  | null
  | readonly ClaimValue[]
  | { readonly [name: string]: ClaimValue }

/** Named in docs/claims.md; byte strings are lower-case hex. */
export type Claims = Readonly<Record<string, ClaimValue>>

/** What a module says of one TEE's evidence: claims are only what the evidence says, believed or not. */
export interface Appraisal {
  readonly tee: Tee
  readonly claims: Claims
  /** What the findings left standing (AR4SI); `verdictOf` lowers nothing here. */
  readonly trustworthiness: TrustVector
  readonly findings: readonly Finding[]
}

/** What `caisson evidence verify` prints. */
export interface EvidenceVerdict {
  readonly verdict: Verdict
  readonly tee: Tee
  readonly claims: Claims
  readonly trustworthiness: TrustVector
  readonly reasons: readonly Reason[]
}

/** The worst finding decides; without any, only a vector that is itself affirming is affirmed. */
export function verdictOf(appraisal: Appraisal): EvidenceVerdict {
  const { tee, claims, trustworthiness, findings } = appraisal
  const worst = (severity: Finding['severity']): boolean => findings.some((finding) => finding.severity === severity)
  const tier = statusOf(trustworthiness)
  const verdict =
    worst('contraindicated') || tier === 'contraindicated'
      ? 'contraindicated'
      : worst('warning') || tier !== 'affirming'
        ? 'warning'
        : 'affirming'
  return {
    verdict,
    tee,
    claims,
    trustworthiness,
    reasons: findings.map(({ severity: _severity, ...reason }) => reason),
  }
}
