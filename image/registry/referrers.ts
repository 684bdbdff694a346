/**
 * What refers to an image (OCI distribution-spec 1.1 "Listing Referrers"), with the tag that stands in where a registry
 * has no such API. Nobody vouches for the list: the registry may leave out what it likes, and what it names is verified
 * by whoever uses it.
 */
import { MalformedError } from '#protocol/errors'
import type { Descriptor } from '#protocol/oci/descriptor'
import { type Digest, digestAlgorithm, digestHex } from '#protocol/oci/digest'
import { type ImageReference, withTag } from '#protocol/oci/reference'
import { parseManifest } from '../manifest/manifest.ts'
import { discard, readBounded } from './body.ts'
import type { RegistryClient } from './client.ts'

const MAX_INDEX_BYTES = 4 * 1024 * 1024
const MAX_PAGES = 8

/** Descriptors of manifests whose subject is said to be `digest`. Errors: those of the registry client. */
export async function listReferrers(
  registry: RegistryClient,
  repository: ImageReference,
  digest: Digest,
  signal?: AbortSignal,
): Promise<readonly Descriptor[]> {
  const found: Descriptor[] = []
  let path = `referrers/${digest}`
  for (let page = 0; page < MAX_PAGES; page++) {
    const response = await registry.call({ method: 'GET', repository, path, actions: 'pull', signal })
    if (response.status !== 200) {
      await discard(response)
      // Registries without the API answer 404, and older ones whatever their router says.
      if (page === 0) return await listByTag(registry, repository, digest, signal)
      break
    }
    const what = `referrers of ${digest}`
    found.push(...readIndex(await readBounded(response, MAX_INDEX_BYTES, what), what))
    const next = nextPage(response.headers.link)
    if (next === undefined) break
    path = next
  }
  return found
}

/** `sha256-<hex>`: the index that clients keep themselves. */
export function referrersTag(digest: Digest): string {
  return `${digestAlgorithm(digest)}-${digestHex(digest)}`
}

async function listByTag(
  registry: RegistryClient,
  repository: ImageReference,
  digest: Digest,
  signal: AbortSignal | undefined,
): Promise<readonly Descriptor[]> {
  const tag = referrersTag(digest)
  const found = await registry.findManifest(withTag(repository, tag), signal)
  return found === undefined ? [] : readIndex(found.bytes, `referrers ${tag}`)
}

function readIndex(bytes: Uint8Array, what: string): readonly Descriptor[] {
  const document = parseManifest(bytes, what)
  if (document.kind === 'index') return document.manifests
  throw new MalformedError('ERR_IMAGE_MEDIA_TYPE', `${what}: a manifest, not an index`)
}

/** RFC 8288, as the specification uses it. Only a path on the same registry is followed. */
function nextPage(link: string | undefined): string | undefined {
  return /^\s*<(\/v2\/[^<>\s]{1,4096})>\s*;\s*rel="?next"?/.exec(link ?? '')?.[1]
}
