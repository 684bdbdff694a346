/** To which guests something is given: options of `caisson verifier resource` and `identity`, and the words of their lists. */
import { parseReleaseCondition, type ReleaseCondition } from '#attestation/store/release-condition'
import type { Invocation, OptionSpec } from './command.ts'

export const RELEASE_OPTIONS: Readonly<Record<string, OptionSpec>> = {
  'require-image': {
    type: 'string',
    placeholder: 'DIGEST',
    multiple: true,
    help: 'only for guests whose token names this image',
  },
  reference: {
    type: 'string',
    placeholder: 'ID',
    multiple: true,
    help: 'only for guests that match these reference values',
  },
  require: {
    type: 'string',
    placeholder: 'CEL',
    help: 'only when this condition on the token holds (docs/appraisal.md)',
  },
}

/** Throws `MalformedError` ERR_RELEASE_CONDITION, ERR_CONDITION, ERR_REFERENCE_ID. */
export function releaseConditionOf(invocation: Invocation): ReleaseCondition {
  const images = invocation.strings('require-image')
  const require = invocation.string('require')
  return parseReleaseCondition(images.length > 0 ? 'images' : 'attested', images, {
    references: invocation.strings('reference'),
    ...(require === undefined ? {} : { require }),
  })
}

/** "images sha256:…, reference a or b, require CEL" */
export function releaseText(release: ReleaseCondition): string {
  const { references = [], require } = release
  return [
    release.kind === 'images' ? `images ${release.manifests.join(' or ')}` : release.kind,
    ...(references.length === 0 ? [] : [`reference ${references.join(' or ')}`]),
    ...(require === undefined ? [] : [`require ${require}`]),
  ].join(', ')
}
