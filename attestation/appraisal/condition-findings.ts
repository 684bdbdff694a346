/** Conditions of a policy, asked of the claims. What cannot be answered is refused. */
import type { Appraisal, Finding } from '../evidence/verdict.ts'
import type { AppraisalPolicy } from './policy.ts'

export function conditionFindings({ tee, claims }: Appraisal, { conditions }: AppraisalPolicy): Finding[] {
  return conditions
    .filter(({ tees }) => tees === undefined || tees.includes(tee))
    .flatMap(({ name, expression, holds, remedy }): Finding[] => {
      const result = holds({ ...claims, tee })
      if ('answer' in result && result.answer) return []
      const found = 'problem' in result ? result.problem : 'false'
      const subject = JSON.stringify(name)
      return [
        {
          severity: 'contraindicated',
          code: 'problem' in result ? 'policy_condition_error' : 'policy_condition',
          message: `condition ${subject} ${'problem' in result ? 'cannot be answered' : 'does not hold'}`,
          expected: expression,
          found,
          remedy: remedy ?? 'Refuse the evidence, or change the condition of the policy.',
        },
      ]
    })
}
