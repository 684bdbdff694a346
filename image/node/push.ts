/** Pushes an OCI image layout to a registry: blobs first, then what refers to them. */

import { UsageError } from '#protocol/errors'
import type { Descriptor } from '#protocol/oci/descriptor'
import type { Digest } from '#protocol/oci/digest'
import { formatReference, type ImageReference, parseReference, withDigest } from '#protocol/oci/reference'
import type { RegistryClient } from '../registry/client.ts'
import { type LayoutDocument, OciLayout } from './layout.ts'
import { type UploadTarget, uploadBlob, uploadManifest } from './upload.ts'

export interface PushOptions {
  /** Folder in OCI image layout form, with one image in it. */
  readonly layout: string
  /** Where to: repository with a tag. */
  readonly reference: string | ImageReference
  readonly registry: RegistryClient
  readonly onProgress?: (blob: { digest: Digest; bytes: number; sent: boolean }) => void
  readonly signal?: AbortSignal
}

export interface PushedImage {
  /** With the digest, and nothing else: what to put into a policy. */
  readonly reference: string
  readonly digest: Digest
  /** Of the first manifest, base first. */
  readonly layers: readonly Descriptor[]
}

/** Throws `UsageError` ERR_PUSH_TAG, and the errors of layout and registry. */
export async function pushImage(options: PushOptions): Promise<PushedImage> {
  const reference =
    typeof options.reference === 'string' ? parseReference(options.reference, 'latest') : options.reference
  const { tag } = reference
  if (tag === undefined || reference.digest !== undefined) {
    throw new UsageError('ERR_PUSH_TAG', `${formatReference(reference)}: push to a tag, not to a digest`)
  }
  const target: UploadTarget = { registry: options.registry, repository: reference, signal: options.signal }
  const layout = new OciLayout(options.layout)
  const image = await layout.image()
  const children = await layout.children(image)
  for (const child of children) {
    await pushBlobs(child, layout, target, options)
    const { bytes, descriptor } = child
    await uploadManifest(target, { bytes, mediaType: descriptor.mediaType, version: descriptor.digest })
  }
  await pushBlobs(image, layout, target, options)
  const { bytes, descriptor } = image
  const digest = await uploadManifest(target, { bytes, mediaType: descriptor.mediaType, version: tag })
  const manifest = [image, ...children].map(({ document }) => document).find((document) => document.kind === 'manifest')
  return { reference: formatReference(withDigest(reference, digest)), digest, layers: manifest?.layers ?? [] }
}

async function pushBlobs(
  { document }: LayoutDocument,
  layout: OciLayout,
  target: UploadTarget,
  { onProgress }: PushOptions,
): Promise<void> {
  if (document.kind === 'index') return
  const blobs = new Map<Digest, Descriptor>([...document.layers, document.config].map((blob) => [blob.digest, blob]))
  for (const blob of blobs.values()) {
    await layout.checkBlob(blob)
    const { digest, size } = blob
    const sent = await uploadBlob(target, { digest, size, read: () => layout.readBlob(digest) })
    onProgress?.({ digest, bytes: size, sent })
  }
}
