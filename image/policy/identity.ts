/**
 * `signedIdentity` rules (containers-policy.json(5)): may a signature made for `signed` vouch for the image that was
 * asked for as `image`? A signed name without tag and digest satisfies the two rules about repositories only.
 */
import { formatReference, type ImageReference, parseReference, repositoryName } from '#protocol/oci/reference'
import type { IdentityRule } from './policy.ts'
import { withOneVersion } from './scopes.ts'

/**
 * @param image undefined for one that has no name, in a folder: only rules that name a reference can hold
 * @param signed the docker-reference in the signature, as it stands there; unreadable ones match nothing
 */
export function identityMatches(rule: IdentityRule, image: ImageReference | undefined, signed: string): boolean {
  const claimed = tryParse(signed)
  if (claimed === undefined) return false
  if (rule.type === 'exactReference') return sameReference(parseReference(rule.dockerReference), claimed)
  if (rule.type === 'exactRepository') {
    return repositoryName(claimed) === repositoryName(parseReference(rule.dockerRepository))
  }
  if (image === undefined) return false
  const pulled = withOneVersion(image)
  switch (rule.type) {
    case 'matchExact':
      return sameReference(pulled, claimed)
    case 'matchRepoDigestOrExact':
      return matchRepoDigestOrExact(pulled, claimed)
    case 'matchRepository':
      return repositoryName(claimed) === repositoryName(pulled)
    case 'remapIdentity': {
      const remapped = remap(pulled, rule.prefix, rule.signedPrefix)
      return remapped !== undefined && matchRepoDigestOrExact(remapped, claimed)
    }
    default:
      return rule satisfies never
  }
}

/** By digest any version of the repository will do: the digest itself is compared with the signature's elsewhere. */
function matchRepoDigestOrExact(pulled: ImageReference, claimed: ImageReference): boolean {
  if (isNameOnly(claimed)) return false
  if (pulled.digest !== undefined) return repositoryName(claimed) === repositoryName(pulled)
  return sameReference(pulled, claimed)
}

function sameReference(a: ImageReference, b: ImageReference): boolean {
  return !isNameOnly(a) && !isNameOnly(b) && formatReference(a) === formatReference(b)
}

function isNameOnly({ tag, digest }: ImageReference): boolean {
  return tag === undefined && digest === undefined
}

/** Replaces `prefix` where it ends at a component boundary; other names stay as they are. */
function remap(pulled: ImageReference, prefix: string, signedPrefix: string): ImageReference | undefined {
  const repository = repositoryName(pulled)
  if (repository !== prefix && !repository.startsWith(`${prefix}/`)) return pulled
  const renamed = tryParse(`${signedPrefix}${repository.slice(prefix.length)}`)
  return renamed === undefined ? undefined : { ...renamed, tag: pulled.tag, digest: pulled.digest }
}

function tryParse(text: string): ImageReference | undefined {
  try {
    return parseReference(text)
  } catch {
    return undefined
  }
}
