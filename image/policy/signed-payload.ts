/** What a payload whose signature holds must say: this digest, under a name that the policy's signedIdentity accepts. */
import { DeniedError, UnverifiedError } from '#protocol/errors'
import type { Digest } from '#protocol/oci/digest'
import { type PayloadKind, parsePayload } from '../signature/payload.ts'
import { identityMatches } from './identity.ts'
import type { IdentityRule } from './policy.ts'
import type { RequirementContext } from './requirement.ts'

/** Throws `UnverifiedError` ERR_IMAGE_SIGNATURE, `DeniedError` ERR_IMAGE_IDENTITY, or what `parsePayload` throws. */
export function requirePayload(
  bytes: Uint8Array,
  kind: PayloadKind,
  wanted: { readonly digest: Digest; readonly identity: IdentityRule; readonly source: string },
  context: RequirementContext,
): void {
  const payload = parsePayload(bytes, 'signed payload', kind)
  if (payload.manifestDigest !== wanted.digest) {
    throw new UnverifiedError(
      'ERR_IMAGE_SIGNATURE',
      `${context.image}: ${wanted.source} is for ${payload.manifestDigest}, the image is ${wanted.digest}`,
      { hint: 'The signature was copied from another image, or the image was changed. Sign this one.' },
    )
  }
  if (identityMatches(wanted.identity, context.reference, payload.dockerReference)) return
  throw new DeniedError(
    'ERR_IMAGE_IDENTITY',
    `${context.image}: signed as ${JSON.stringify(payload.dockerReference)}, which ${ruleText(wanted.identity)} of ${context.place} refuses`,
    {
      field: `${context.place}.signedIdentity`,
      allowed: ruleText(wanted.identity),
      asked: payload.dockerReference,
      hint: 'Sign the image under the name it is pulled by, or choose another signedIdentity.',
    },
  )
}

function ruleText(rule: IdentityRule): string {
  switch (rule.type) {
    case 'exactReference':
      return `exactReference ${rule.dockerReference}`
    case 'exactRepository':
      return `exactRepository ${rule.dockerRepository}`
    case 'remapIdentity':
      return `remapIdentity ${rule.prefix} to ${rule.signedPrefix}`
    case 'matchExact':
    case 'matchRepoDigestOrExact':
    case 'matchRepository':
      return rule.type
    default:
      return rule satisfies never
  }
}
