/**
 * registries.d (containers-registries.d(5)): where the OpenPGP signatures of a repository are kept. YAML to value, over
 * all files of the folder; a scope that two of them give different storage is refused, for which counted would be chance.
 */
import { parse as parseYaml } from 'yaml'
import { errorText, MalformedError } from '#protocol/errors'
import type { ImageReference } from '#protocol/oci/reference'
import { scopesOf } from '../policy/scopes.ts'

export interface LookasideConfig {
  readonly default: string | undefined
  /** Scope, as in policy.json, to base URL. */
  readonly docker: ReadonlyMap<string, string>
}

export interface ConfigFile {
  readonly name: string
  readonly text: string
}

const MAX_CHARACTERS = 1024 * 1024
const TOP = ['default-docker', 'docker']
/** "sigstore…" are the names that this format had before sigstore took the word. */
const SECTION = ['lookaside', 'lookaside-staging', 'sigstore', 'sigstore-staging', 'use-sigstore-attachments']

/** Throws `MalformedError` ERR_REGISTRIES_D. */
export function parseRegistriesD(files: readonly ConfigFile[]): LookasideConfig {
  let fallback: Section | undefined
  const docker = new Map<string, Section>()
  for (const { name: file, text } of files) {
    const top = members(readYaml(file, text), file, TOP)
    if (top['default-docker'] !== undefined) {
      fallback = once(
        fallback,
        { file, url: readSection(top['default-docker'], `${file}: default-docker`) },
        'default-docker',
      )
    }
    for (const [scope, section] of Object.entries(object(top.docker ?? {}, `${file}: docker`))) {
      const place = `docker[${JSON.stringify(scope.slice(0, 200))}]`
      docker.set(scope, once(docker.get(scope), { file, url: readSection(section, `${file}: ${place}`) }, place))
    }
  }
  const urls = [...docker].flatMap(([scope, { url }]): [string, string][] => (url === undefined ? [] : [[scope, url]]))
  return { default: fallback?.url, docker: new Map(urls) }
}

interface Section {
  readonly file: string
  readonly url: string | undefined
}

/** Saying the same twice is harmless. */
function once(before: Section | undefined, section: Section, place: string): Section {
  if (before === undefined || before.url === section.url) return section
  throw malformed(section.file, `${place} is in ${before.file} as well, with another lookaside`)
}

/** Base URL for a repository: of the most specific scope that has one. */
export function lookasideFor(config: LookasideConfig, reference: ImageReference): string | undefined {
  for (const scope of scopesOf(reference)) {
    const url = config.docker.get(scope)
    if (scope !== '' && url !== undefined) return url
  }
  return config.default
}

function readSection(value: unknown, place: string): string | undefined {
  const section = members(value, place, SECTION)
  for (const name of SECTION.slice(0, 4)) {
    if (section[name] !== undefined && typeof section[name] !== 'string')
      throw malformed(place, `${name} is not a string`)
  }
  const attachments = section['use-sigstore-attachments']
  if (attachments !== undefined && typeof attachments !== 'boolean') {
    throw malformed(place, 'use-sigstore-attachments is not true or false')
  }
  const url = section.lookaside ?? section.sigstore
  return typeof url === 'string' && url !== '' ? url : undefined
}

function readYaml(file: string, text: string): unknown {
  if (text.length > MAX_CHARACTERS) throw malformed(file, `longer than ${MAX_CHARACTERS} characters`)
  try {
    return parseYaml(text, { uniqueKeys: true, maxAliasCount: 0, version: '1.2', logLevel: 'error' }) ?? {}
  } catch (cause) {
    throw malformed(file, errorText(cause), cause)
  }
}

function members(value: unknown, place: string, allowed: readonly string[]): Readonly<Record<string, unknown>> {
  const given = object(value, place)
  const unknown = Object.keys(given).find((name) => !allowed.includes(name))
  if (unknown !== undefined) throw malformed(place, `unknown member ${JSON.stringify(unknown.slice(0, 100))}`)
  return given
}

function object(value: unknown, place: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(place, 'not a mapping')
  return { ...value }
}

function malformed(place: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_REGISTRIES_D', `registries.d: ${place}: ${why}`, {
    hint: 'The form is that of containers-registries.d(5).',
    ...(cause === undefined ? {} : { cause }),
  })
}
