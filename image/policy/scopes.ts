/** Which requirement list of a policy counts for an image: the most specific scope alone (containers-policy.json). */
import { formatReference, type ImageReference, repositoryName } from '#protocol/oci/reference'
import type { Requirement, SignaturePolicy } from './policy.ts'

export interface ScopedRequirements {
  /** For messages: `docker["registry.example/team"]` or "default". */
  readonly place: string
  readonly requirements: readonly Requirement[]
}

/** An image that is not in a registry. `path` is absolute, with symbolic links resolved. */
export interface StoredPlace {
  readonly transport: 'dir' | 'oci'
  readonly path: string
}

export function requirementsFor(policy: SignaturePolicy, image: ImageReference | StoredPlace): ScopedRequirements {
  const inRegistry = 'registry' in image
  const transport = inRegistry ? 'docker' : image.transport
  const lists = inRegistry ? policy.docker : policy.transports.get(transport)
  for (const scope of inRegistry ? scopesOf(image) : foldersOf(image.path)) {
    const requirements = lists?.get(scope)
    if (requirements !== undefined) return { place: `${transport}[${JSON.stringify(scope)}]`, requirements }
  }
  return { place: 'default', requirements: policy.default }
}

/** Most specific first: full reference, repository, its parents, registry, `*.` parents of the host, everything. */
export function scopesOf(reference: ImageReference): readonly string[] {
  const repository = repositoryName(reference)
  const scopes = [formatReference(withOneVersion(reference)), repository]
  for (let slash = repository.lastIndexOf('/'); slash !== -1; slash = repository.lastIndexOf('/', slash - 1)) {
    scopes.push(repository.slice(0, slash))
  }
  const host = reference.registry.replace(/:[0-9]+$/, '')
  for (let dot = host.indexOf('.'); dot !== -1; dot = host.indexOf('.', dot + 1)) scopes.push(`*${host.slice(dot)}`)
  return [...scopes, '']
}

/** A folder and its parents, without "/", which is the scope "". */
function foldersOf(path: string): readonly string[] {
  const folders: string[] = []
  for (let folder = path; folder !== ''; folder = folder.slice(0, folder.lastIndexOf('/'))) folders.push(folder)
  return [...folders, '']
}

/** The digest is what will run; a tag beside it is decoration that must not select another rule. */
export function withOneVersion(reference: ImageReference): ImageReference {
  return reference.digest === undefined ? reference : { ...reference, tag: undefined }
}
