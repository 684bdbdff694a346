/** `signedIdentity` of a requirement: JSON to value. */
import { type ImageReference, parseReference } from '#protocol/oci/reference'
import type { JsonValue } from '../json/strict-json.ts'
import { malformed, members, object, text } from './members.ts'
import type { IdentityRule } from './policy.ts'

/** containers-policy.json: the default of every requirement is matchRepoDigestOrExact. */
export function identityRuleFrom(value: JsonValue | undefined, place: string): IdentityRule {
  if (value === undefined) return { type: 'matchRepoDigestOrExact' }
  const type = text(object(value, place).type, `${place}.type`)
  switch (type) {
    case 'matchExact':
    case 'matchRepoDigestOrExact':
    case 'matchRepository':
      members(value, place, ['type'])
      return { type }
    case 'exactReference': {
      const given = members(value, place, ['type', 'dockerReference'])
      const dockerReference = text(given.dockerReference, `${place}.dockerReference`)
      const reference = readReference(dockerReference, `${place}.dockerReference`)
      if (reference.tag === undefined && reference.digest === undefined) {
        throw malformed(`${place}.dockerReference`, 'has neither tag nor digest')
      }
      return { type, dockerReference }
    }
    case 'exactRepository': {
      const given = members(value, place, ['type', 'dockerRepository'])
      const dockerRepository = text(given.dockerRepository, `${place}.dockerRepository`)
      const reference = readReference(dockerRepository, `${place}.dockerRepository`)
      if (reference.tag !== undefined || reference.digest !== undefined) {
        throw malformed(`${place}.dockerRepository`, 'has a tag or a digest')
      }
      return { type, dockerRepository }
    }
    case 'remapIdentity': {
      const given = members(value, place, ['type', 'prefix', 'signedPrefix'])
      return {
        type,
        prefix: namePrefix(given.prefix, `${place}.prefix`),
        signedPrefix: namePrefix(given.signedPrefix, `${place}.signedPrefix`),
      }
    }
    default:
      throw malformed(`${place}.type`, `unknown identity rule ${JSON.stringify(type.slice(0, 100))}`)
  }
}

function readReference(value: string, place: string): ImageReference {
  try {
    return parseReference(value)
  } catch (cause) {
    throw malformed(place, 'is not an image reference', cause)
  }
}

/** A registry or a repository, complete: "docker.io/library", not "library". */
function namePrefix(value: JsonValue | undefined, place: string): string {
  const prefix = text(value, place)
  if (!/^[a-zA-Z0-9.:[\]-]+(?:\/[a-z0-9._-]+)*$/.test(prefix)) throw malformed(place, 'is not a registry or repository')
  return prefix
}
