/**
 * Release conditions: what an attestation token must say before a resource goes to the guest it names.
 *
 * `attested`: the result is affirming. `images`: moreover the token is the second one, and one of the images it names
 * has a listed manifest digest.
 */
import { MalformedError } from '#protocol/errors'

export type ReleaseCondition =
  | { readonly kind: 'attested' }
  | { readonly kind: 'images'; readonly manifests: readonly string[] }

const MANIFEST_DIGEST = /^sha256:[0-9a-f]{64}$/
const MAX_MANIFESTS = 64

/** @throws MalformedError ERR_RELEASE_CONDITION */
export function parseReleaseCondition(kind: string, manifests: readonly string[]): ReleaseCondition {
  if (kind === 'attested' && manifests.length === 0) return { kind }
  if (kind === 'images') {
    const wrong = manifests.find((manifest) => !MANIFEST_DIGEST.test(manifest))
    if (wrong !== undefined) throw malformed(`${JSON.stringify(wrong)} is not a sha256 manifest digest`)
    if (manifests.length === 0 || manifests.length > MAX_MANIFESTS) {
      throw malformed(`condition "images" names ${manifests.length} manifest digests, 1 to ${MAX_MANIFESTS} are needed`)
    }
    return { kind, manifests: [...new Set(manifests)] }
  }
  throw malformed(
    kind === 'attested'
      ? 'condition "attested" takes no manifest digests'
      : `${JSON.stringify(kind.slice(0, 64))} is not a release condition`,
  )
}

function malformed(message: string): MalformedError {
  return new MalformedError('ERR_RELEASE_CONDITION', message, {
    hint: 'Use "attested", or "images" with one or more manifest digests.',
  })
}
