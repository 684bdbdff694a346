/**
 * Release conditions: what an attestation token must say before a resource goes to the guest it names.
 *
 * `attested`: the result is affirming. `images`: moreover the token is the second one, and one of the images it names
 * has a listed manifest digest.
 */
import type { JWTPayload } from 'jose'
import { DeniedError, MalformedError } from '#protocol/errors'

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

/**
 * Decides for claims that were verified before.
 *
 * @throws DeniedError ERR_RELEASE_NOT_AFFIRMING, ERR_RELEASE_IMAGES
 */
export function checkRelease(condition: ReleaseCondition, claims: JWTPayload): void {
  const status = statusClaim(claims)
  if (status !== 'affirming') {
    throw new DeniedError('ERR_RELEASE_NOT_AFFIRMING', 'the attestation result is not affirming', {
      field: 'ear.status',
      allowed: 'affirming',
      asked: JSON.stringify(status),
      hint: 'See `caisson verifier explain` for the claims that are not.',
    })
  }
  if (condition.kind === 'attested') return
  const found = imageManifests(claims)
  if (!condition.manifests.some((manifest) => found.includes(manifest))) {
    throw new DeniedError('ERR_RELEASE_IMAGES', 'the resource is kept for images that this token does not name', {
      field: 'caisson.images',
      allowed: condition.manifests.join(', '),
      asked: found.length === 0 ? 'a token without images' : found.join(', '),
      hint: 'The guest must attest again after it admitted the image; or change the condition of the resource.',
    })
  }
}

function statusClaim(claims: JWTPayload): unknown {
  return member(member(member(claims, 'submods'), 'cpu0'), 'ear.status')
}

function imageManifests(claims: JWTPayload): readonly string[] {
  const images = claims['caisson.images']
  if (!Array.isArray(images)) return []
  return images.map((image: unknown) => member(image, 'manifest')).filter((manifest) => typeof manifest === 'string')
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? Object.getOwnPropertyDescriptor(value, name)?.value
    : undefined
}

function malformed(message: string): MalformedError {
  return new MalformedError('ERR_RELEASE_CONDITION', message, {
    hint: 'Use "attested", or "images" with one or more manifest digests.',
  })
}
