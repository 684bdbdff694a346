/**
 * Image references: `[host[:port]/]path[:tag][@digest]`, expanded to the full name.
 *
 * Grammar: distribution/reference. The first component is a host if it contains `.` or `:` or is `localhost`; without a
 * host the registry is docker.io, where single-component names get `library/`. The digest, where there is one, wins.
 */
import { MalformedError } from '../errors.ts'
import { type Digest, isDigest } from './digest.ts'

export interface ImageReference {
  /** Host with port if any, lower case: "docker.io", "registry.example:5000". */
  readonly registry: string
  /** "library/nginx" */
  readonly path: string
  readonly tag: string | undefined
  readonly digest: Digest | undefined
}

const MAX_REFERENCE_LENGTH = 4096
/** distribution/reference: registry and path together. */
const MAX_REPOSITORY_LENGTH = 255
const DOCKER_HUB = 'docker.io'

const HOST_LABEL = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const REGISTRY = new RegExp(`^(?:${HOST_LABEL}(?:\\.${HOST_LABEL})*|\\[[0-9a-fA-F:]{2,39}\\])(?::[0-9]{1,5})?$`)
const PATH = /^[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*$/
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/

/** @param defaultTag applied when the text has neither tag nor digest; without it such a reference stays bare */
export function parseReference(text: string, defaultTag?: string): ImageReference {
  if (text.length > MAX_REFERENCE_LENGTH) throw malformed(text, `longer than ${MAX_REFERENCE_LENGTH} characters`)
  const { name, tag, digest } = splitSuffixes(text)
  const slash = name.indexOf('/')
  const first = slash === -1 ? '' : name.slice(0, slash)
  const hasHost = first !== '' && (/[.:]/.test(first) || first === 'localhost')
  const registry = hasHost ? first.toLowerCase() : DOCKER_HUB
  const rest = hasHost ? name.slice(slash + 1) : name

  if (!REGISTRY.test(registry)) throw malformed(text, `${JSON.stringify(registry)} is not a registry host`)
  const port = /:([0-9]+)$/.exec(registry)?.[1]
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535)) throw malformed(text, `port ${port}`)
  const canonical = registry === 'index.docker.io' ? DOCKER_HUB : registry
  const path = canonical === DOCKER_HUB && !rest.includes('/') ? `library/${rest}` : rest
  if (!PATH.test(path)) throw malformed(text, `${JSON.stringify(rest)} is not a repository path`)
  if (canonical.length + 1 + path.length > MAX_REPOSITORY_LENGTH) {
    throw malformed(text, `repository name longer than ${MAX_REPOSITORY_LENGTH} characters`)
  }
  return { registry: canonical, path, tag: tag ?? (digest === undefined ? defaultTag : undefined), digest }
}

function splitSuffixes(text: string): { name: string; tag: string | undefined; digest: Digest | undefined } {
  const at = text.indexOf('@')
  const beforeDigest = at === -1 ? text : text.slice(0, at)
  const digest = at === -1 ? undefined : text.slice(at + 1)
  if (digest !== undefined && !isDigest(digest)) throw malformed(text, `${JSON.stringify(digest)} is not a digest`)
  // A colon after the last slash starts the tag; one before it belongs to the registry's port.
  const colon = beforeDigest.indexOf(':', beforeDigest.lastIndexOf('/') + 1)
  if (colon === -1) return { name: beforeDigest, tag: undefined, digest }
  const tag = beforeDigest.slice(colon + 1)
  if (!TAG.test(tag)) throw malformed(text, `${JSON.stringify(tag)} is not a tag`)
  return { name: beforeDigest.slice(0, colon), tag, digest }
}

/** Registry and path: "docker.io/library/nginx". */
export function repositoryName(reference: ImageReference): string {
  return `${reference.registry}/${reference.path}`
}

/** The full form: nothing is abbreviated, so equal references have equal texts. */
export function formatReference(reference: ImageReference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`
  return `${repositoryName(reference)}${tag}${digest}`
}

/** The same repository, pinned to `digest` and without a tag. */
export function withDigest(reference: ImageReference, digest: Digest): ImageReference {
  return { registry: reference.registry, path: reference.path, tag: undefined, digest }
}

export function withTag(reference: ImageReference, tag: string): ImageReference {
  return { registry: reference.registry, path: reference.path, tag, digest: undefined }
}

function malformed(text: string, why: string): MalformedError {
  return new MalformedError('ERR_IMAGE_REFERENCE', `image reference ${JSON.stringify(text.slice(0, 200))}: ${why}`, {
    hint: 'The form is [host[:port]/]path[:tag][@sha256:…], for example registry.example/team/app@sha256:….',
  })
}
