/**
 * A tenant's policy applied to what the module of a TEE found: findings that the policy permits go, demands that do not hold
 * become findings. Claims stay as they are.
 */
import type { Appraisal, Finding } from '../evidence/verdict.ts'
import type { TrustVector } from '../token/trust-vector.ts'
import { conditionFindings } from './condition-findings.ts'
import { measurementFindings } from './measurement-findings.ts'
import { minimumFindings } from './minimum-findings.ts'
import type { AppraisalPolicy } from './policy.ts'

export function applyPolicy(appraisal: Appraisal, policy: AppraisalPolicy): Appraisal {
  const kept = appraisal.findings.filter((finding) => !isPermitted(finding, appraisal, policy))
  const measured = measurementFindings(appraisal, policy)
  const added = [
    ...teeFindings(appraisal, policy),
    ...minimumFindings(appraisal, policy),
    ...measured.findings,
    ...conditionFindings(appraisal, policy),
  ]
  const findings = [...kept, ...added]
  const permitted = kept.length < appraisal.findings.length
  const vector = permitted ? raised(appraisal.trustworthiness, kept) : appraisal.trustworthiness
  return { ...appraisal, findings, trustworthiness: lowered(vector, measured) }
}

/** Only what a tenant may decide: that its guest is debugged, its TPM a program, its platform not up to date, and what it lists. */
function isPermitted({ code, severity }: Finding, { claims }: Appraisal, policy: AppraisalPolicy): boolean {
  if (code === 'debug') return policy.debug
  if (code === 'emulated') return policy.emulated
  if (severity === 'warning' && policy.permit.includes(code)) return true
  const status = claims['tcb_status']
  return code === 'tcb_status' && typeof status === 'string' && policy.tdxMinimum?.statuses?.includes(status) === true
}

function teeFindings({ tee }: Appraisal, { tees }: AppraisalPolicy): Finding[] {
  if (tees === undefined || tees.includes(tee)) return []
  return [
    {
      severity: 'contraindicated',
      code: 'policy_tee',
      message: `the policy does not accept evidence of ${tee}`,
      expected: tees.join(', '),
      found: tee,
      remedy: 'Run the guest on one of these, or name the other under `tee` of the policy.',
    },
  ]
}

/** Numbers of AR4SI (draft-ietf-rats-ar4si, section 2.3). */
const AFFIRMING_MAX = 31
const WARNING_MAX = 95
const PERMITTED = { none: 3, warning: 32 } as const
const APPROVED_BOOT = 3
const UNRECOGNISED = 33

/** No claim is worse than what is left of the findings that made it so. */
function raised(vector: TrustVector, left: readonly Finding[]): TrustVector {
  const refused = left.some(({ severity }) => severity === 'contraindicated')
  if (refused) return vector
  const [max, value] = left.length > 0 ? [WARNING_MAX, PERMITTED.warning] : [AFFIRMING_MAX, PERMITTED.none]
  const claims = Object.entries(vector).map(([claim, level]: [string, number]) => [claim, level > max ? value : level])
  return Object.fromEntries(claims) as unknown as TrustVector
}

function lowered(vector: TrustVector, measured: ReturnType<typeof measurementFindings>): TrustVector {
  const { executables } = vector
  if (measured.findings.length > 0) return { ...vector, executables: Math.max(executables, UNRECOGNISED) }
  return measured.approvedBoot && executables === 0 ? { ...vector, executables: APPROVED_BOOT } : vector
}
