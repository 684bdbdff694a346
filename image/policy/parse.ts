/**
 * policy.json: text to value. Strict as containers-policy.json(5) asks: an unknown, duplicate or ill-typed member, an
 * empty requirement list, or a missing default refuses the whole file, for a policy that is not understood cannot be
 * enforced. Judgement is in ./evaluate.ts.
 */
import { type JsonValue, parseStrictJson } from '../json/strict-json.ts'
import { malformed, members, object } from './members.ts'
import type { Requirement, SignaturePolicy } from './policy.ts'
import { requirementFrom } from './requirement-from.ts'

const MAX_POLICY_CHARACTERS = 1024 * 1024
const MAX_REQUIREMENTS = 64
const MAX_SCOPES = 4096

type Scopes = Map<string, readonly Requirement[]>

/** Throws `MalformedError` ERR_JSON (with line and column) or ERR_IMAGE_POLICY (with the member's path). */
export function parseSignaturePolicy(source: string | Uint8Array): SignaturePolicy {
  if (source.length > MAX_POLICY_CHARACTERS) throw malformed('policy', `longer than ${MAX_POLICY_CHARACTERS}`)
  const top = members(parseStrictJson(source, 'policy.json'), 'policy', ['default', 'transports'])
  const transports = new Map<string, Scopes>()
  for (const [transport, value] of Object.entries(
    top.transports === undefined ? {} : object(top.transports, 'transports'),
  )) {
    // Lists of transports that are never pulled from are checked too: a mistake in them is a mistake in this file.
    transports.set(transport, parseScopes(transport, value))
  }
  const docker = transports.get('docker') ?? new Map()
  transports.delete('docker')
  return { default: parseRequirements(top.default, 'default'), docker, transports }
}

function parseScopes(transport: string, value: JsonValue): Scopes {
  const place = `transports.${transport}`
  const entries = Object.entries(object(value, place))
  if (entries.length > MAX_SCOPES) throw malformed(place, `${entries.length} scopes, at most ${MAX_SCOPES}`)
  return new Map(
    entries.map(([scope, list]) => {
      checkScope(transport, scope, place)
      return [scope, parseRequirements(list, `${place}[${JSON.stringify(scope)}]`)]
    }),
  )
}

/** Anything else could never match, and a scope that never matches is a trap. */
const DOCKER_SCOPE =
  /^(?:\*\.)?(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?(?:\/[a-z0-9._/-]+(?::[A-Za-z0-9_.-]+|@sha(?:256|512):[0-9a-f]+)?)?$/

/** Transports whose scopes are folders: absolute, without "." and ".." and double or final slashes, and not "/". */
const FOLDER_TRANSPORTS: ReadonlySet<string> = new Set(['dir', 'oci', 'oci-archive', 'sif'])
/** Transports that containers-policy.json(5) gives the scope "" only. */
const UNSCOPED: ReadonlySet<string> = new Set(['docker-archive', 'tarball'])

function checkScope(transport: string, scope: string, place: string): void {
  if (scope === '') return
  const refused = (why: string) => malformed(place, `${JSON.stringify(scope.slice(0, 200))} ${why}`)
  if (transport === 'docker') {
    const wildcard = scope.startsWith('*.')
    if (!DOCKER_SCOPE.test(scope) || (wildcard && /[/:]/.test(scope))) {
      throw refused('is not a registry, a repository or a reference')
    }
  }
  if (FOLDER_TRANSPORTS.has(transport)) {
    if (!scope.startsWith('/')) throw refused('is not an absolute path')
    if (scope === '/') throw refused('is the same as the scope ""')
    const parts = scope.slice(1).split('/')
    if (parts.some((part) => part === '' || part === '.' || part === '..')) throw refused('is not a canonical path')
  }
  if (UNSCOPED.has(transport)) throw refused('stands where only "" may')
}

function parseRequirements(value: JsonValue | undefined, place: string): readonly Requirement[] {
  if (!Array.isArray(value)) throw malformed(place, 'must be an array of requirements')
  if (value.length === 0) throw malformed(place, 'is empty: nothing would be required')
  if (value.length > MAX_REQUIREMENTS) throw malformed(place, `more than ${MAX_REQUIREMENTS} requirements`)
  return value.map((item, index) => requirementFrom(item, `${place}[${index}]`))
}
