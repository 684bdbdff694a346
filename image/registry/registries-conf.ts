/**
 * registries.conf, version 2 (containers-registries.conf(5)): where repositories are fetched from. TOML to value, and
 * from a repository to the places that are tried for it. What is fetched is judged under the name that was asked for.
 */
import { parse as parseToml, type TomlTable, type TomlValue } from 'smol-toml'
import { DeniedError, errorText, MalformedError } from '#protocol/errors'
import { type ImageReference, parseReference, repositoryName } from '#protocol/oci/reference'

export interface RegistriesConf {
  readonly registries: readonly RegistryEntry[]
}

interface RegistryEntry {
  /** A name, or "*.host". */
  readonly prefix: string
  readonly location: string | undefined
  readonly insecure: boolean
  readonly blocked: boolean
  readonly mirrors: readonly Mirror[]
}

interface Mirror {
  readonly location: string
  readonly insecure: boolean
  readonly for: 'all' | 'digest-only' | 'tag-only'
}

/** One place that may have what was asked for. */
export interface RegistryPlace {
  readonly repository: ImageReference
  /** Reached by http. */
  readonly plainHttp: boolean
}

/** @param byDigest whether what is asked for goes by its digest */
export type RegistryRoute = (repository: ImageReference, byDigest: boolean) => readonly RegistryPlace[]

const MAX_CHARACTERS = 1024 * 1024
const TOP = ['unqualified-search-registries', 'short-name-mode', 'credential-helpers', 'aliases', 'registry']
const ENTRY = ['prefix', 'location', 'insecure', 'blocked', 'mirror-by-digest-only', 'mirror']
const MIRROR = ['location', 'insecure', 'pull-from-mirror']
const NAME = /^(?:\*\.)?[a-zA-Z0-9.-]+(?::[0-9]{1,5})?(?:\/[a-z0-9._-]+)*$/

/** Throws `MalformedError` ERR_REGISTRIES_CONF. */
export function parseRegistriesConf(text: string): RegistriesConf {
  if (text.length > MAX_CHARACTERS) throw malformed('registries.conf', `longer than ${MAX_CHARACTERS} characters`)
  let top: TomlTable
  try {
    top = parseToml(text)
  } catch (cause) {
    throw malformed('registries.conf', errorText(cause), cause)
  }
  const given = members(top, 'registries.conf', TOP)
  const registries = tables(given.registry, 'registry').map((entry, index) => readEntry(entry, `registry[${index}]`))
  for (const [index, { prefix }] of registries.entries()) {
    if (registries.findIndex((other) => other.prefix === prefix) !== index) {
      throw malformed(`registry[${index}]`, `prefix ${JSON.stringify(prefix)} occurs twice`)
    }
  }
  return { registries }
}

/** Throws, when it is asked, `DeniedError` ERR_REGISTRY_BLOCKED. */
export function routeBy({ registries }: RegistriesConf): RegistryRoute {
  return (repository, byDigest) => {
    const name = repositoryName(repository)
    const entry = mostSpecific(registries, name)
    if (entry === undefined) return [{ repository, plainHttp: false }]
    if (entry.blocked) {
      throw new DeniedError('ERR_REGISTRY_BLOCKED', `${name}: registries.conf blocks ${entry.prefix}`, {
        field: 'registry.blocked',
        allowed: 'other registries',
        asked: name,
        hint: 'Remove the block from registries.conf, or use another registry.',
      })
    }
    const mirrors = entry.mirrors
      .filter((mirror) => mirror.for === 'all' || (mirror.for === 'digest-only') === byDigest)
      .map(({ location, insecure }) => place(repository, entry.prefix, location, insecure))
    return [...mirrors, place(repository, entry.prefix, entry.location, entry.insecure)]
  }
}

function mostSpecific(registries: readonly RegistryEntry[], name: string): RegistryEntry | undefined {
  let best: RegistryEntry | undefined
  for (const entry of registries) {
    if (matchedLength(entry.prefix, name) === 0) continue
    if (best === undefined || entry.prefix.length > best.prefix.length) best = entry
  }
  return best
}

/** Characters of `name` that the prefix stands for; 0 when it does not match at a component's boundary. */
function matchedLength(prefix: string, name: string): number {
  if (!prefix.startsWith('*.')) return name === prefix || name.startsWith(`${prefix}/`) ? prefix.length : 0
  const slash = name.indexOf('/')
  const host = slash === -1 ? name : name.slice(0, slash)
  const [suffix = '', ...path] = prefix.slice(1).split('/')
  if (!host.endsWith(suffix) || host.length === suffix.length) return 0
  const whole = [host, ...path].join('/')
  return name === whole || name.startsWith(`${whole}/`) ? whole.length : 0
}

function place(
  repository: ImageReference,
  prefix: string,
  location: string | undefined,
  plainHttp: boolean,
): RegistryPlace {
  if (location === undefined) return { repository, plainHttp }
  const name = repositoryName(repository)
  const { registry, path } = parseReference(`${location}${name.slice(matchedLength(prefix, name))}`)
  return { repository: { ...repository, registry, path }, plainHttp }
}

function readEntry(value: TomlValue, where: string): RegistryEntry {
  const given = members(value, where, ENTRY)
  const location = name(given.location, `${where}.location`, false)
  const prefix = name(given.prefix, `${where}.prefix`, true) ?? location
  if (prefix === undefined) throw malformed(where, 'has neither prefix nor location')
  const byDigestOnly = flag(given['mirror-by-digest-only'], `${where}.mirror-by-digest-only`)
  return {
    prefix,
    location,
    insecure: flag(given.insecure, `${where}.insecure`),
    blocked: flag(given.blocked, `${where}.blocked`),
    mirrors: tables(given.mirror, `${where}.mirror`).map((mirror, index) =>
      readMirror(mirror, `${where}.mirror[${index}]`, byDigestOnly),
    ),
  }
}

function readMirror(value: TomlValue, where: string, byDigestOnly: boolean): Mirror {
  const given = members(value, where, MIRROR)
  const location = name(given.location, `${where}.location`, false)
  if (location === undefined) throw malformed(where, 'has no location')
  const from = given['pull-from-mirror'] ?? (byDigestOnly ? 'digest-only' : 'all')
  if (from !== 'all' && from !== 'digest-only' && from !== 'tag-only') {
    throw malformed(where, 'pull-from-mirror is none of all, digest-only, tag-only')
  }
  if (byDigestOnly && from !== 'digest-only') {
    throw malformed(where, 'pull-from-mirror contradicts mirror-by-digest-only')
  }
  return { location, insecure: flag(given.insecure, `${where}.insecure`), for: from }
}

function name(value: TomlValue | undefined, where: string, wildcard: boolean): string | undefined {
  if (value === undefined || value === '') return undefined
  if (typeof value === 'string' && NAME.test(value) && (wildcard || !value.startsWith('*'))) return value
  throw malformed(where, 'is not a registry or a repository')
}

function flag(value: TomlValue | undefined, where: string): boolean {
  if (value === undefined) return false
  if (typeof value === 'boolean') return value
  throw malformed(where, 'is not true or false')
}

function tables(value: TomlValue | undefined, where: string): readonly TomlValue[] {
  if (value === undefined) return []
  if (Array.isArray(value)) return value
  throw malformed(where, 'is not a list of tables: version 1 of registries.conf is not supported')
}

function members(value: TomlValue, where: string, allowed: readonly string[]): Readonly<Record<string, TomlValue>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Date) {
    throw malformed(where, 'is not a table')
  }
  const unknown = Object.keys(value).find((key) => !allowed.includes(key))
  if (unknown !== undefined) throw malformed(where, `unknown member ${JSON.stringify(unknown.slice(0, 100))}`)
  return value
}

function malformed(where: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_REGISTRIES_CONF', `registries.conf: ${where}: ${why}`, {
    hint: 'The form is version 2 of containers-registries.conf(5).',
    ...(cause === undefined ? {} : { cause }),
  })
}
