/**
 * policy.json: text to value. Strict as containers-policy.json(5) asks: an unknown, duplicate or ill-typed member, an
 * empty requirement list, or a missing default refuses the whole file, for a policy that is not understood cannot be
 * enforced. Judgement is in ./evaluate.ts.
 */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { parseReference } from '#protocol/oci/reference'
import { type JsonObject, type JsonValue, parseStrictJson } from '../json/strict-json.ts'
import type { IdentityRule, KeySource, Requirement, SignaturePolicy, SigstoreSigned } from './policy.ts'

const MAX_POLICY_CHARACTERS = 1024 * 1024
const MAX_REQUIREMENTS = 64
const MAX_SCOPES = 4096
const MAX_KEYS = 64

/** Throws `MalformedError` ERR_JSON (with line and column) or ERR_IMAGE_POLICY (with the member's path). */
export function parseSignaturePolicy(source: string | Uint8Array): SignaturePolicy {
  if (source.length > MAX_POLICY_CHARACTERS) throw malformed('policy', `longer than ${MAX_POLICY_CHARACTERS}`)
  const top = members(parseStrictJson(source, 'policy.json'), 'policy', ['default', 'transports'])
  const docker = new Map<string, readonly Requirement[]>()
  const transports = top.transports === undefined ? {} : object(top.transports, 'transports')
  for (const [transport, scopes] of Object.entries(transports)) {
    const place = `transports.${transport}`
    const entries = Object.entries(object(scopes, place))
    if (entries.length > MAX_SCOPES) throw malformed(place, `${entries.length} scopes, at most ${MAX_SCOPES}`)
    for (const [scope, list] of entries) {
      // Lists of other transports are checked too: a mistake in them is still a mistake in this file.
      const requirements = parseRequirements(list, `${place}[${JSON.stringify(scope)}]`)
      if (transport === 'docker') docker.set(parseScope(scope, place), requirements)
    }
  }
  return { default: parseRequirements(top.default, 'default'), docker }
}

/** containers-policy.json: "docker:" scopes. Anything else could never match, and a scope that never matches is a trap. */
const SCOPE =
  /^(?:\*\.)?(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?(?:\/[a-z0-9._/-]+(?::[A-Za-z0-9_.-]+|@sha(?:256|512):[0-9a-f]+)?)?$/

function parseScope(scope: string, place: string): string {
  if (scope === '') return scope
  const wildcard = scope.startsWith('*.')
  if (!SCOPE.test(scope) || (wildcard && /[/:]/.test(scope))) {
    throw malformed(place, `${JSON.stringify(scope.slice(0, 200))} is not a registry, a repository or a reference`)
  }
  return scope
}

function parseRequirements(value: JsonValue | undefined, place: string): readonly Requirement[] {
  if (!Array.isArray(value)) throw malformed(place, 'must be an array of requirements')
  if (value.length === 0) throw malformed(place, 'is empty: nothing would be required')
  if (value.length > MAX_REQUIREMENTS) throw malformed(place, `more than ${MAX_REQUIREMENTS} requirements`)
  return value.map((item, index) => parseRequirement(item, `${place}[${index}]`))
}

function parseRequirement(value: JsonValue, place: string): Requirement {
  const type = text(object(value, place).type, `${place}.type`)
  switch (type) {
    case 'insecureAcceptAnything':
    case 'reject':
      members(value, place, ['type'])
      return { type }
    case 'signedBy':
      return parseSignedBy(value, place)
    case 'signedBaseLayer': {
      const given = members(value, place, ['type', 'baseLayerIdentity'])
      parseIdentity(given.baseLayerIdentity, `${place}.baseLayerIdentity`)
      return { type }
    }
    case 'sigstoreSigned':
      return parseSigstoreSigned(value, place)
    default:
      throw malformed(`${place}.type`, `unknown requirement ${JSON.stringify(type)}`)
  }
}

/** containers-policy.json names the first; the others are reserved there, and no implementation accepts an image by them. */
const KEY_TYPES: ReadonlySet<string> = new Set(['GPGKeys', 'signedByGPGKeys', 'X509Certificates', 'signedByX509CAs'])

function parseSignedBy(value: JsonValue, place: string): Requirement {
  const given = members(value, place, ['type', 'keyType', 'keyPath', 'keyPaths', 'keyData', 'signedIdentity'])
  const keyType = text(given.keyType, `${place}.keyType`)
  if (!KEY_TYPES.has(keyType)) throw malformed(`${place}.keyType`, `unknown: ${JSON.stringify(keyType)}`)
  oneOf(given, place, ['keyPath', 'keyPaths', 'keyData'])
  for (const name of ['keyPath', 'keyData']) if (given[name] !== undefined) text(given[name], `${place}.${name}`)
  if (given.keyPaths !== undefined) texts(given.keyPaths, `${place}.keyPaths`)
  parseIdentity(given.signedIdentity, `${place}.signedIdentity`)
  return { type: 'signedBy' }
}

const KEY_MEMBERS = ['keyPath', 'keyPaths', 'keyData', 'keyDatas']
const REKOR_MEMBERS = ['rekorPublicKeyPath', 'rekorPublicKeyPaths', 'rekorPublicKeyData', 'rekorPublicKeyDatas']

function parseSigstoreSigned(value: JsonValue, place: string): SigstoreSigned {
  const given = members(value, place, ['type', ...KEY_MEMBERS, 'fulcio', 'pki', ...REKOR_MEMBERS, 'signedIdentity'])
  const by = oneOf(given, place, [...KEY_MEMBERS, 'fulcio', 'pki'])
  const rekor = REKOR_MEMBERS.filter((name) => given[name] !== undefined)
  if (rekor.length > 1) throw malformed(place, `${rekor.join(' and ')} exclude each other`)
  for (const name of rekor) checkTextOrTexts(given[name], `${place}.${name}`)
  if (by === 'fulcio') {
    const fulcio = members(given.fulcio, `${place}.fulcio`, ['caPath', 'caData', 'oidcIssuer', 'subjectEmail'])
    oneOf(fulcio, `${place}.fulcio`, ['caPath', 'caData'])
    text(fulcio.oidcIssuer, `${place}.fulcio.oidcIssuer`)
    text(fulcio.subjectEmail, `${place}.fulcio.subjectEmail`)
    if (rekor.length === 0) throw malformed(place, 'fulcio needs a rekorPublicKeyPath or rekorPublicKeyData')
  }
  if (by === 'pki') {
    if (rekor.length > 0) throw malformed(place, `pki and ${rekor[0]} exclude each other`)
    const allowed = ['caRootsPath', 'caRootsData', 'caIntermediatesPath', 'caIntermediatesData']
    const pki = members(given.pki, `${place}.pki`, [...allowed, 'subjectHostname', 'subjectEmail'])
    oneOf(pki, `${place}.pki`, ['caRootsPath', 'caRootsData'])
    for (const [name, entry] of Object.entries(pki)) text(entry, `${place}.pki.${name}`)
  }
  return {
    type: 'sigstoreSigned',
    keys: parseKeys(given, place),
    keyless: by === 'fulcio' || by === 'pki' ? by : undefined,
    rekor: rekor.length > 0,
    identity: parseIdentity(given.signedIdentity, `${place}.signedIdentity`),
  }
}

function parseKeys(given: JsonObject, place: string): readonly KeySource[] {
  if (given.keyPath !== undefined) return [{ kind: 'path', path: text(given.keyPath, `${place}.keyPath`) }]
  if (given.keyData !== undefined) return [inlineKey(text(given.keyData, `${place}.keyData`), `${place}.keyData`)]
  if (given.keyPaths !== undefined)
    return texts(given.keyPaths, `${place}.keyPaths`).map((path) => ({ kind: 'path', path }))
  if (given.keyDatas === undefined) return []
  return texts(given.keyDatas, `${place}.keyDatas`).map((data, index) => inlineKey(data, `${place}.keyDatas[${index}]`))
}

/** Base64 of PEM, as containers-policy.json says; PEM itself too, since Confidential Containers' image-rs reads that. */
function inlineKey(data: string, place: string): KeySource {
  if (data.trimStart().startsWith('-----BEGIN ')) return { kind: 'inline', pem: data }
  return { kind: 'inline', pem: new TextDecoder().decode(fromBase64(data, place)) }
}

/** containers-policy.json: the default of every requirement is matchRepoDigestOrExact. */
function parseIdentity(value: JsonValue | undefined, place: string): IdentityRule {
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
      const reference = parseReference(dockerReference)
      if (reference.tag === undefined && reference.digest === undefined) {
        throw malformed(`${place}.dockerReference`, 'has neither tag nor digest')
      }
      return { type, dockerReference }
    }
    case 'exactRepository': {
      const given = members(value, place, ['type', 'dockerRepository'])
      const dockerRepository = text(given.dockerRepository, `${place}.dockerRepository`)
      const reference = parseReference(dockerRepository)
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
      throw malformed(`${place}.type`, `unknown identity rule ${JSON.stringify(type)}`)
  }
}

/** A registry or a repository, complete: "docker.io/library", not "library". */
function namePrefix(value: JsonValue | undefined, place: string): string {
  const prefix = text(value, place)
  if (!/^[a-zA-Z0-9.:[\]-]+(?:\/[a-z0-9._-]+)*$/.test(prefix)) throw malformed(place, 'is not a registry or repository')
  return prefix
}

function object(value: JsonValue | undefined, place: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(place, 'must be an object')
  return value as JsonObject
}

/** An object with no other members than `allowed`. */
function members(value: JsonValue | undefined, place: string, allowed: readonly string[]): JsonObject {
  const given = object(value, place)
  const unknown = Object.keys(given).find((name) => !allowed.includes(name))
  if (unknown !== undefined) throw malformed(place, `unknown member ${JSON.stringify(unknown)}`)
  return given
}

function oneOf(given: JsonObject, place: string, names: readonly string[]): string {
  const present = names.filter((name) => given[name] !== undefined)
  const [first] = present
  if (first === undefined || present.length > 1) throw malformed(place, `needs exactly one of ${names.join(', ')}`)
  return first
}

function text(value: JsonValue | undefined, place: string): string {
  if (typeof value !== 'string' || value === '') throw malformed(place, 'must be a non-empty string')
  return value
}

function texts(value: JsonValue | undefined, place: string): readonly string[] {
  if (!Array.isArray(value) || value.length === 0) throw malformed(place, 'must be a non-empty array of strings')
  if (value.length > MAX_KEYS) throw malformed(place, `more than ${MAX_KEYS} items`)
  return value.map((item, index) => text(item, `${place}[${index}]`))
}

function checkTextOrTexts(value: JsonValue | undefined, place: string): void {
  if (place.endsWith('s')) texts(value, place)
  else text(value, place)
}

function malformed(place: string, why: string): MalformedError {
  return new MalformedError('ERR_IMAGE_POLICY', `image policy: ${place}: ${why}`, {
    hint: 'The form is that of containers-policy.json(5). A policy that is not understood admits nothing.',
  })
}
