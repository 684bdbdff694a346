/** Whether an attestation token's claims meet the release condition of a resource. */
import type { JWTPayload } from 'jose'
import { DeniedError } from '#protocol/errors'
import type { ReleaseCondition } from '../store/release-condition.ts'

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
