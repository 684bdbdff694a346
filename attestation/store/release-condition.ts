/**
 * Release conditions: what an attestation token must say before a resource goes to the guest it names.
 *
 * `attested`: the result is affirming. `images`: moreover the token is the second one, and one of the images it names
 * has a listed manifest digest. Either may be narrowed: to guests of listed reference values, and by a condition in CEL on
 * the token's claims.
 */
import { MalformedError } from '#protocol/errors'
import { ConditionLanguage } from '../appraisal/condition.ts'
import { parseReferenceId } from './reference-store.ts'

export interface ReleaseLimits {
  /** Reference values that the guest must have matched one of. */
  readonly references?: readonly string[]
  /** CEL over `RELEASE_VARIABLES`. */
  readonly require?: string
}

export type ReleaseCondition = ReleaseLimits &
  ({ readonly kind: 'attested' } | { readonly kind: 'images'; readonly manifests: readonly string[] })

/** What conditions may name: docs/appraisal.md, "Release". */
export const RELEASE_LANGUAGE: ConditionLanguage = new ConditionLanguage({
  tee: 'string',
  evidence: 'map',
  trust: 'map',
  reference: 'string',
  policy: 'string',
  initdata: 'string',
  documents: 'map',
  images: 'list',
  claims: 'map',
})

const MANIFEST_DIGEST = /^sha256:[0-9a-f]{64}$/
const MAX_MANIFESTS = 64
const MAX_REFERENCES = 64

/** @throws MalformedError ERR_RELEASE_CONDITION, ERR_CONDITION, ERR_REFERENCE_ID */
export function parseReleaseCondition(
  kind: string,
  manifests: readonly string[],
  limits: ReleaseLimits = {},
): ReleaseCondition {
  const checked = checkLimits(limits)
  if (kind === 'attested' && manifests.length === 0) return { kind, ...checked }
  if (kind === 'images') {
    const wrong = manifests.find((manifest) => !MANIFEST_DIGEST.test(manifest))
    if (wrong !== undefined) throw malformed(`${JSON.stringify(wrong)} is not a sha256 manifest digest`)
    if (manifests.length === 0 || manifests.length > MAX_MANIFESTS) {
      throw malformed(`condition "images" names ${manifests.length} manifest digests, 1 to ${MAX_MANIFESTS} are needed`)
    }
    return { kind, manifests: [...new Set(manifests)], ...checked }
  }
  throw malformed(
    kind === 'attested'
      ? 'condition "attested" takes no manifest digests'
      : `${JSON.stringify(kind.slice(0, 64))} is not a release condition`,
  )
}

function checkLimits({ references = [], require }: ReleaseLimits): ReleaseLimits {
  if (references.length > MAX_REFERENCES) {
    throw malformed(`${references.length} reference values are named, at most ${MAX_REFERENCES}`)
  }
  if (require !== undefined) RELEASE_LANGUAGE.compile(require) // refused now, not when a guest asks
  return {
    ...(references.length === 0 ? {} : { references: [...new Set(references.map(parseReferenceId))] }),
    ...(require === undefined ? {} : { require }),
  }
}

function malformed(message: string): MalformedError {
  return new MalformedError('ERR_RELEASE_CONDITION', message, {
    hint: 'Use "attested", or "images" with one or more manifest digests.',
  })
}
