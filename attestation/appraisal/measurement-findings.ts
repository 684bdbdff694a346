/** Measured claims against the values that a policy lists. */
import type { Appraisal, Claims, Finding } from '../evidence/verdict.ts'
import { CLAIM_TYPES } from './claim-types.ts'
import type { AppraisalPolicy } from './policy.ts'

/** Claims that say what was booted, as opposed to who configured it. */
const BOOTED: ReadonlySet<string> = new Set(['measurement', 'mrtd', 'rtmr0', 'rtmr1', 'rtmr2', 'rtmr3'])

const REMEDY = 'Add the value to the policy if the guest is yours (`caisson measure` predicts it); otherwise refuse it.'

export interface MeasurementResult {
  readonly findings: readonly Finding[]
  /** Something was booted that the policy lists, and nothing that it does not. */
  readonly approvedBoot: boolean
}

export function measurementFindings({ tee, claims }: Appraisal, policy: AppraisalPolicy): MeasurementResult {
  const lists = [...policy.measurements].filter(([name]) => CLAIM_TYPES[name]?.tees.includes(tee))
  const registers = tee === 'tpm' || claims['pcrs'] !== undefined ? registerLists(policy) : []
  if (lists.length + registers.length === 0) {
    const demanded = policy.measurements.size + policy.pcrs.size > 0
    return { findings: demanded ? [nothingListed(tee)] : [], approvedBoot: false }
  }
  const findings = [
    ...lists.flatMap(([name, accepted]) => compare(name, claims[name], accepted)),
    ...registers.flatMap(({ bank, pcr, accepted }) =>
      compare(`pcrs.${bank}.${pcr}`, pcrOf(claims, bank, pcr), accepted),
    ),
  ]
  const booted = registers.length > 0 || lists.some(([name]) => BOOTED.has(name))
  return { findings, approvedBoot: booted && findings.length === 0 }
}

function compare(name: string, found: unknown, accepted: readonly string[]): Finding[] {
  if (typeof found === 'string' && accepted.includes(found)) return []
  return [
    {
      severity: 'contraindicated',
      code: 'policy_measurement',
      message: `the policy does not list this ${name}`,
      expected: accepted.join(', '),
      found: typeof found === 'string' ? found : 'nothing',
      remedy: REMEDY,
    },
  ]
}

function nothingListed(tee: string): Finding {
  return {
    severity: 'contraindicated',
    code: 'policy_measurement',
    message: `the policy lists measurements, but none that evidence of ${tee} has`,
    remedy: REMEDY,
  }
}

function registerLists(policy: AppraisalPolicy): { bank: string; pcr: number; accepted: readonly string[] }[] {
  return [...policy.pcrs].flatMap(([bank, registers]) =>
    [...registers].map(([pcr, accepted]) => ({ bank, pcr, accepted })),
  )
}

function pcrOf(claims: Claims, bank: string, pcr: number): unknown {
  const banks = claims['pcrs']
  if (typeof banks !== 'object' || banks === null || !Object.hasOwn(banks, bank)) return undefined
  const registers: unknown = (banks as Readonly<Record<string, unknown>>)[bank]
  if (typeof registers !== 'object' || registers === null || !Object.hasOwn(registers, String(pcr))) return undefined
  return (registers as Readonly<Record<string, unknown>>)[String(pcr)]
}
