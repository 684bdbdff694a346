/** Uploads blobs and manifests (OCI distribution-spec 1.1, "Push"). */
import { MalformedError, UnavailableError } from '#protocol/errors'
import type { HttpResponse } from '#protocol/http-transport'
import { computeDigest, type Digest } from '#protocol/oci/digest'
import { type ImageReference, repositoryName } from '#protocol/oci/reference'
import { discard, readBounded } from '../registry/body.ts'
import type { RegistryClient } from '../registry/client.ts'

export interface UploadTarget {
  readonly registry: RegistryClient
  readonly repository: ImageReference
  readonly signal?: AbortSignal | undefined
}

/** Monolithic, in one PUT; nothing is sent when the registry has the blob. Answers whether it was sent. */
export async function uploadBlob(
  target: UploadTarget,
  blob: { digest: Digest; size: number; read: () => Uint8Array | AsyncIterable<Uint8Array> },
): Promise<boolean> {
  const { registry, repository, signal } = target
  const call = { repository, actions: 'pull,push', signal } as const
  const head = await registry.call({ ...call, method: 'HEAD', path: `blobs/${blob.digest}` })
  await discard(head)
  if (head.status === 200) return false

  const started = await registry.call({
    ...call,
    method: 'POST',
    path: 'blobs/uploads/',
    headers: { 'content-length': '0' },
  })
  await requireStatus(started, 202, `upload to ${repositoryName(repository)}`)
  await discard(started)
  const location = started.headers.location
  if (location === undefined) {
    throw new MalformedError('ERR_REGISTRY_UPLOAD', `${repositoryName(repository)}: the upload has no location`)
  }
  const path = `${location}${location.includes('?') ? '&' : '?'}digest=${encodeURIComponent(blob.digest)}`
  const put = await registry.call({
    ...call,
    method: 'PUT',
    path,
    headers: { 'content-type': 'application/octet-stream', 'content-length': `${blob.size}` },
    body: blob.read,
  })
  await requireStatus(put, 201, `upload of ${blob.digest}`)
  await discard(put)
  return true
}

/** @param version tag, or the document's digest. Answers with the digest. */
export async function uploadManifest(
  target: UploadTarget,
  document: { bytes: Uint8Array; mediaType: string; version: string },
): Promise<Digest> {
  const response = await target.registry.call({
    method: 'PUT',
    repository: target.repository,
    path: `manifests/${document.version}`,
    actions: 'pull,push',
    headers: { 'content-type': document.mediaType },
    body: () => document.bytes,
    signal: target.signal,
  })
  await requireStatus(response, 201, `manifest ${document.version} of ${repositoryName(target.repository)}`)
  await discard(response)
  return computeDigest(target.registry.crypto, document.bytes)
}

async function requireStatus(response: HttpResponse, status: number, what: string): Promise<void> {
  if (response.status === status) return
  const text = new TextDecoder().decode(await readBounded(response, 64 * 1024, what)).slice(0, 300)
  throw new UnavailableError(
    'ERR_REGISTRY_STATUS',
    `${what}: the registry answers ${response.status} ${JSON.stringify(text)}`,
  )
}
