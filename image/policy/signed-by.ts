/** `signedBy`: simple signing with OpenPGP keys (containers-policy.json(5), containers-signature(5)). */
import { UnavailableError, UnverifiedError } from '#protocol/errors'
import type { SignedBy } from './policy.ts'
import { judgeEach, type RequirementContext, type RequirementFinding, readAllConfigured } from './requirement.ts'
import { requirePayload } from './signed-payload.ts'

export async function judgeSignedBy(requirement: SignedBy, context: RequirementContext): Promise<RequirementFinding> {
  if (requirement.keyType !== 'GPGKeys') {
    throw new UnverifiedError(
      'ERR_IMAGE_POLICY_UNSUPPORTED',
      `${context.image}: ${context.place}: keyType ${requirement.keyType} is reserved, and admits no image`,
      { hint: 'Use keyType GPGKeys.' },
    )
  }
  if (context.engines === undefined) {
    throw new UnavailableError('ERR_IMAGE_POLICY_UNSUPPORTED', `${context.place}: OpenPGP is not available here`, {
      hint: 'Use sigstoreSigned with keys.',
    })
  }
  const openpgp = await context.engines.openpgp()
  const keyring = await openpgp.readKeyring(await readAllConfigured(requirement.keys, context), context.place)
  return await judgeEach(context, 'openpgp', async ({ message, source }, digest) => {
    const { content, signer } = await openpgp.verify(message, keyring, { now: context.now, what: source })
    requirePayload(content, 'openpgp', { digest, identity: requirement.identity, source }, context)
    return signer
  })
}
