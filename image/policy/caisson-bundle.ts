/** `caissonBundle`: sigstore bundles that name the image's digest. */
import { UnavailableError } from '#protocol/errors'
import type { CaissonBundle } from './policy.ts'
import type { RequirementContext, RequirementFinding } from './requirement.ts'

export function judgeBundle({ type }: CaissonBundle, { place }: RequirementContext): Promise<RequirementFinding> {
  throw new UnavailableError('ERR_IMAGE_POLICY_UNSUPPORTED', `${place}: ${type} is not available here`, {
    hint: 'Use sigstoreSigned with keys.',
  })
}
