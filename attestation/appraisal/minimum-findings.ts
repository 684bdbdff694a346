/** Security versions against the minimum of a policy. */
import { fromHex, toHex } from '#protocol/encoding'
import type { Appraisal, Claims, Finding } from '../evidence/verdict.ts'
import { type AppraisalPolicy, SNP_TCB_COMPONENTS, type TdxMinimum } from './policy.ts'

const UPDATE = 'Update the platform’s firmware, or lower the minimum of the policy.'

export function minimumFindings({ tee, claims }: Appraisal, policy: AppraisalPolicy): Finding[] {
  if (tee === 'snp' && policy.snpMinimum !== undefined) return snpFindings(claims, policy.snpMinimum)
  if (tee === 'tdx' && policy.tdxMinimum !== undefined) return tdxFindings(claims, policy.tdxMinimum)
  return []
}

function snpFindings(claims: Claims, minimum: NonNullable<AppraisalPolicy['snpMinimum']>): Finding[] {
  const { product, tcb } = claims
  const wanted = typeof product === 'string' ? minimum.get(product) : undefined
  if (wanted === undefined) {
    const message = 'the policy has no minimum for this processor'
    return [refused(message, [...minimum.keys()].join(', '), typeof product === 'string' ? product : 'unknown')]
  }
  const levels = typeof tcb === 'object' && tcb !== null ? (tcb as Readonly<Record<string, unknown>>) : {}
  return SNP_TCB_COMPONENTS.flatMap((component) => {
    const least = wanted[component]
    const level = levels[component]
    if (least === undefined || (typeof level === 'number' && level >= least)) return []
    const found = typeof level === 'number' ? String(level) : 'nothing'
    return [refused(`the ${component} of the reported TCB is below the minimum`, `at least ${least}`, found)]
  })
}

function tdxFindings(claims: Claims, { teeTcbSvn, statuses, advisoryIds }: TdxMinimum): Finding[] {
  const findings: Finding[] = []
  const svn = claims['tee_tcb_svn']
  if (teeTcbSvn !== undefined && !(typeof svn === 'string' && atLeast(svn, teeTcbSvn))) {
    const found = typeof svn === 'string' ? svn : 'nothing'
    findings.push(refused('TEE_TCB_SVN is below the minimum', `at least ${toHex(teeTcbSvn)}, byte by byte`, found))
  }
  const status = claims['tcb_status']
  if (statuses !== undefined && typeof status === 'string' && status !== 'UpToDate' && !statuses.includes(status)) {
    findings.push({
      severity: 'contraindicated',
      code: 'policy_tcb_status',
      message: 'the policy does not accept this TCB status',
      expected: ['UpToDate', ...statuses.filter((name) => name !== 'UpToDate')].join(', '),
      found: status,
      remedy: 'Update the platform, or name the status under `minimum.tdx.tcb_status` of the policy.',
    })
  }
  const advisories = claims['advisory_ids']
  const unwanted = Array.isArray(advisories)
    ? advisories.filter((id) => advisoryIds?.includes(String(id)) === false)
    : []
  if (unwanted.length > 0) {
    findings.push({
      severity: 'contraindicated',
      code: 'policy_advisory',
      message: 'the platform has weaknesses that the policy does not accept',
      expected: advisoryIds?.length === 0 ? 'no advisory' : `only ${advisoryIds?.join(', ') ?? ''}`,
      found: unwanted.join(', '),
      remedy: 'Read the advisories; update the platform, or name them under `minimum.tdx.advisory_ids` of the policy.',
    })
  }
  return findings
}

function atLeast(svn: string, least: Uint8Array): boolean {
  const found = fromHex(svn, 'tee_tcb_svn')
  return found.length === least.length && found.every((level, index) => level >= (least[index] ?? 0))
}

function refused(message: string, expected: string, found: string): Finding {
  return { severity: 'contraindicated', code: 'policy_minimum', message, expected, found, remedy: UPDATE }
}
