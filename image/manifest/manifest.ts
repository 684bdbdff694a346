/**
 * Image manifests and indexes (OCI image-spec 1.1 manifest.md, image-index.md; Docker schema 2): bytes to values.
 *
 * A document is exactly one of the two. One that has the members of both is refused, whatever it calls itself: two
 * readers could otherwise run different things under one digest (CVE-2021-41190).
 */
import { MalformedError } from '#protocol/errors'
import { type Descriptor, parseAnnotations, parseDescriptor, parseMediaType } from '#protocol/oci/descriptor'
import { INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST } from '#protocol/oci/media-types'
import { asArray, asObject } from '../json/fields.ts'
import { parseStrictJson } from '../json/strict-json.ts'

export interface ImageManifest {
  readonly kind: 'manifest'
  readonly mediaType: string
  readonly config: Descriptor
  /** Base first. */
  readonly layers: readonly Descriptor[]
  readonly annotations: ReadonlyMap<string, string>
  readonly artifactType: string | undefined
  readonly subject: Descriptor | undefined
}

export interface ImageIndex {
  readonly kind: 'index'
  readonly mediaType: string
  readonly manifests: readonly Descriptor[]
  readonly annotations: ReadonlyMap<string, string>
}

const MAX_INDEX_ENTRIES = 1024
/** Artifacts have more parts than images have layers; images are bounded where they are pulled. */
const MAX_MANIFEST_LAYERS = 1024

/**
 * Throws `MalformedError` ERR_JSON, ERR_IMAGE_DOCUMENT, ERR_IMAGE_DESCRIPTOR, ERR_DIGEST, or ERR_IMAGE_MEDIA_TYPE for a
 * document of another kind.
 *
 * @param expectedType media type of the descriptor that led here, where one did: the document may not contradict it
 */
export function parseManifest(bytes: Uint8Array, what: string, expectedType?: string): ImageManifest | ImageIndex {
  const document = asObject(parseStrictJson(bytes, what), what)
  if (document.schemaVersion !== 2) {
    throw new MalformedError('ERR_IMAGE_MEDIA_TYPE', `${what}: schemaVersion is not 2`, {
      hint: "Docker's schema 1 is not supported. Push the image again with a current tool.",
    })
  }
  const hasManifests = 'manifests' in document
  if (hasManifests && ('layers' in document || 'config' in document || 'fsLayers' in document)) {
    throw new MalformedError('ERR_IMAGE_DOCUMENT', `${what}: claims to be an index and a manifest at once`)
  }
  const mediaType =
    document.mediaType === undefined
      ? (expectedType ?? (hasManifests ? OCI_INDEX : OCI_MANIFEST))
      : parseMediaType(document.mediaType, what)
  if (expectedType !== undefined && mediaType !== expectedType) {
    throw new MalformedError('ERR_IMAGE_MEDIA_TYPE', `${what}: is ${mediaType}, described as ${expectedType}`)
  }
  if (!(hasManifests ? INDEX_TYPES : MANIFEST_TYPES).has(mediaType)) {
    throw new MalformedError('ERR_IMAGE_MEDIA_TYPE', `${what}: media type ${mediaType} is not one of an image`)
  }
  const annotations = parseAnnotations(document.annotations, `${what}: annotations`)
  if (hasManifests) {
    const manifests = asArray(document.manifests, `${what}: manifests`, MAX_INDEX_ENTRIES)
    return {
      kind: 'index',
      mediaType,
      manifests: manifests.map((entry, index) => parseDescriptor(entry, `${what}: manifests[${index}]`)),
      annotations,
    }
  }
  const layers = asArray(document.layers, `${what}: layers`, MAX_MANIFEST_LAYERS)
  return {
    kind: 'manifest',
    mediaType,
    config: parseDescriptor(document.config, `${what}: config`),
    layers: layers.map((layer, index) => parseDescriptor(layer, `${what}: layers[${index}]`)),
    annotations,
    artifactType:
      document.artifactType === undefined ? undefined : parseMediaType(document.artifactType, `${what}: artifactType`),
    subject: document.subject === undefined ? undefined : parseDescriptor(document.subject, `${what}: subject`),
  }
}
