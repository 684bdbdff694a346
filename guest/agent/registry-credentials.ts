/**
 * Registry credentials as the tenant stores them at the verifier: containers-auth.json(5), the part with `auths` and
 * base64 of "user:password". The most specific entry for a repository wins.
 */
import type { CredentialSource, Credentials } from '#image/registry/authorization'
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'

/** Throws `MalformedError` ERR_REGISTRY_CREDENTIALS; the content is never quoted. */
export function parseRegistryCredentials(bytes: Uint8Array): CredentialSource {
  let document: unknown
  try {
    document = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    throw malformed('it is not JSON')
  }
  const entries = new Map<string, Credentials>()
  for (const [name, value] of Object.entries(record(record(document).auths))) {
    const { auth } = record(value)
    if (typeof auth !== 'string') throw malformed('an entry has no auth')
    const text = decode(fromBase64(auth, 'auth of the registry credentials'))
    const colon = text.indexOf(':')
    if (colon < 1) throw malformed('an auth is not user:password')
    entries.set(name, { username: text.slice(0, colon), password: text.slice(colon + 1) })
  }
  return (registry, repository) => {
    for (
      let name = `${registry}/${repository}`;
      name !== '';
      name = name.slice(0, Math.max(0, name.lastIndexOf('/')))
    ) {
      const found = entries.get(name)
      if (found !== undefined) return found
    }
    return undefined
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw malformed('an auth is not UTF-8')
  }
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed('it lacks auths')
  return { ...value }
}

function malformed(problem: string): MalformedError {
  return new MalformedError('ERR_REGISTRY_CREDENTIALS', `the registry credentials cannot be read: ${problem}`, {
    hint: 'Store an auth.json such as `skopeo login --authfile` writes.',
  })
}
