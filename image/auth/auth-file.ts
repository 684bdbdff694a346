/**
 * Credentials of registries in a file (containers-auth.json(5), and Docker's config.json with the same members): for a
 * repository, its namespaces or its registry; the most specific entry wins, then one that names the same registry in
 * another spelling.
 */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { type JsonObject, type JsonValue, parseStrictJson } from '../json/strict-json.ts'
import type { CredentialSource, Credentials } from '../registry/authorization.ts'

const MAX_BYTES = 1024 * 1024
/** Names of one registry: the last is Docker Hub's, by which Docker itself files its credentials. */
const DOCKER_HUB: ReadonlySet<string> = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io'])

/** Throws `MalformedError` ERR_REGISTRY_CREDENTIALS; the content is never quoted. */
export function parseAuthFile(bytes: Uint8Array): CredentialSource {
  if (bytes.length > MAX_BYTES) throw malformed(`it is longer than ${MAX_BYTES} bytes`)
  const entries = new Map<string, Credentials>()
  const file = record(readJson(bytes))
  const helpers = readHelpers(file)
  // Docker's configuration may name helpers alone.
  const auths = file.auths ?? (helpers === undefined ? undefined : {})
  for (const [name, value] of Object.entries(record(auths))) entries.set(name, readEntry(record(value)))
  const spelt = new Map([...entries].map(([name, credentials]) => [canonical(name), credentials]))
  return (registry, repository) => {
    for (const name of parents(`${registry}/${repository}`)) {
      const found = entries.get(name)
      if (found !== undefined) return found
    }
    const credentials = spelt.get(canonical(registry))
    if (credentials === undefined) helpers?.(registry)
    return credentials
  }
}

/**
 * `credHelpers` and `credsStore` name programs of the machine that the file is from: none is run here, least of all in a
 * guest. A registry whose credentials only such a program has is refused by name, rather than asked as if nobody knew it.
 */
function readHelpers({ credHelpers, credsStore }: JsonObject): ((registry: string) => void) | undefined {
  if (credHelpers === undefined && credsStore === undefined) return undefined
  const named = new Map(Object.entries(record(credHelpers ?? {})).map(([name, helper]) => [canonical(name), helper]))
  return (registry) => {
    const helper = named.get(canonical(registry)) ?? credsStore
    if (helper === undefined || helper === '') return
    throw new MalformedError(
      'ERR_REGISTRY_CREDENTIALS',
      `the credentials of ${registry} are kept by the helper ${JSON.stringify(helper).slice(0, 100)}, which is not asked`,
      {
        hint: 'Write them into the auth.json itself: `skopeo login --authfile`; for a cloud, a token as its password.',
      },
    )
  }
}

function readEntry({ auth, identitytoken, registrytoken }: JsonObject): Credentials {
  const tokens = {
    ...(token(identitytoken) === undefined ? {} : { identityToken: token(identitytoken) as string }),
    ...(token(registrytoken) === undefined ? {} : { registryToken: token(registrytoken) as string }),
  }
  if (auth === undefined || auth === '') {
    if (Object.keys(tokens).length === 0) throw malformed('an entry has neither auth nor a token')
    return { username: '', password: '', ...tokens }
  }
  if (typeof auth !== 'string') throw malformed('an auth is not text')
  const text = decode(base64(auth))
  const colon = text.indexOf(':')
  if (colon < 1) throw malformed('an auth is not user:password')
  // Docker pads what it decodes with NUL.
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, ''), ...tokens }
}

function token(value: JsonValue | undefined): string | undefined {
  if (value === undefined || value === '') return undefined
  if (typeof value !== 'string' || !/^[\x21-\x7e]{1,16384}$/.test(value)) throw malformed('a token is not one word')
  return value
}

/** "host/a/b", "host/a", "host". */
function parents(name: string): readonly string[] {
  const names: string[] = []
  for (let rest = name; rest !== ''; rest = rest.slice(0, Math.max(0, rest.lastIndexOf('/')))) names.push(rest)
  return names
}

/** The host alone: without scheme and path, in lower case, Docker Hub under one name. */
function canonical(name: string): string {
  const host = name
    .replace(/^https?:\/\//, '')
    .replace(/\/.*$/, '')
    .toLowerCase()
  return DOCKER_HUB.has(host) ? 'docker.io' : host
}

function readJson(bytes: Uint8Array): JsonValue {
  try {
    return parseStrictJson(bytes, 'registry credentials')
  } catch {
    throw malformed('it is not JSON')
  }
}

function base64(text: string): Uint8Array {
  try {
    return fromBase64(text, 'auth')
  } catch {
    throw malformed('an auth is not base64')
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw malformed('an auth is not UTF-8')
  }
}

function record(value: JsonValue | undefined): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed('it lacks auths')
  return value as JsonObject
}

function malformed(problem: string): MalformedError {
  return new MalformedError('ERR_REGISTRY_CREDENTIALS', `the registry credentials cannot be read: ${problem}`, {
    hint: 'Store an auth.json such as `skopeo login --authfile` writes.',
  })
}
