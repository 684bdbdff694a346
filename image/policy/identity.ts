/** `signedIdentity` rules: may a signature made for `signed` vouch for the image pulled as `image`? */
import { formatReference, type ImageReference, parseReference, repositoryName } from '#protocol/oci/reference'
import type { IdentityRule } from './policy.ts'
import { withOneVersion } from './scopes.ts'

/** @param signed the docker-reference in the signature, as it stands there; unreadable ones match nothing */
export function identityMatches(rule: IdentityRule, image: ImageReference, signed: string): boolean {
  const claimed = tryParse(signed)
  if (claimed === undefined) return false
  const pulled = withOneVersion(image)
  switch (rule.type) {
    case 'matchExact':
      return pulled.tag !== undefined && formatReference(claimed) === formatReference(pulled)
    case 'matchRepoDigestOrExact':
      return matchRepoDigestOrExact(pulled, claimed)
    case 'matchRepository':
      return repositoryName(claimed) === repositoryName(pulled)
    case 'exactReference':
      return formatReference(claimed) === formatReference(parseReference(rule.dockerReference))
    case 'exactRepository':
      return repositoryName(claimed) === repositoryName(parseReference(rule.dockerRepository))
    case 'remapIdentity': {
      const remapped = remap(pulled, rule.prefix, rule.signedPrefix)
      return remapped !== undefined && matchRepoDigestOrExact(remapped, claimed)
    }
    default:
      return rule satisfies never
  }
}

function matchRepoDigestOrExact(pulled: ImageReference, claimed: ImageReference): boolean {
  if (pulled.digest !== undefined) return repositoryName(claimed) === repositoryName(pulled)
  return pulled.tag !== undefined && formatReference(claimed) === formatReference(pulled)
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
