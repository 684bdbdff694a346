/**
 * Descriptors (OCI image-spec 1.1, descriptor.md): what a manifest says about a blob. Unknown members are tolerated, as
 * the specification asks; known ones must have their type.
 */
import { MalformedError } from '../errors.ts'
import { type Digest, parseDigest } from './digest.ts'

export interface Platform {
  readonly architecture: string
  readonly os: string
  readonly variant: string | undefined
}

export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  /** Bytes. */
  readonly size: number
  readonly annotations: ReadonlyMap<string, string>
  readonly artifactType: string | undefined
  readonly platform: Platform | undefined
}

/** RFC 6838 4.2. */
const MEDIA_TYPE = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/

/** @param value a value as `JSON.parse` returns it */
export function parseDescriptor(value: unknown, what: string): Descriptor {
  const fields = record(value, what)
  const size = fields.size
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw new MalformedError('ERR_IMAGE_DESCRIPTOR', `${what}: size is not a non-negative integer`)
  }
  return {
    mediaType: parseMediaType(fields.mediaType, what),
    digest: parseDigest(fields.digest, what),
    size,
    annotations: parseAnnotations(fields.annotations, what),
    artifactType: fields.artifactType === undefined ? undefined : parseMediaType(fields.artifactType, what),
    platform: fields.platform === undefined ? undefined : parsePlatform(fields.platform, what),
  }
}

export function parseMediaType(value: unknown, what: string): string {
  if (typeof value !== 'string' || !MEDIA_TYPE.test(value)) {
    throw new MalformedError('ERR_IMAGE_DESCRIPTOR', `${what}: mediaType is not a media type`)
  }
  return value
}

/** Null stands for absence: Go's encoder writes it for an empty map. */
export function parseAnnotations(value: unknown, what: string): ReadonlyMap<string, string> {
  if (value === undefined || value === null) return new Map()
  const annotations = new Map<string, string>()
  for (const [key, text] of Object.entries(record(value, what))) {
    if (typeof text !== 'string') {
      throw new MalformedError('ERR_IMAGE_DESCRIPTOR', `${what}: annotation ${JSON.stringify(key)} is not a string`)
    }
    annotations.set(key, text)
  }
  return annotations
}

function parsePlatform(value: unknown, what: string): Platform {
  const { architecture, os, variant } = record(value, what)
  if (typeof architecture !== 'string' || typeof os !== 'string') {
    throw new MalformedError('ERR_IMAGE_DESCRIPTOR', `${what}: platform without architecture or os`)
  }
  return { architecture, os, variant: typeof variant === 'string' && variant !== '' ? variant : undefined }
}

function record(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new MalformedError('ERR_IMAGE_DESCRIPTOR', `${what}: not a JSON object`)
  }
  return value as Readonly<Record<string, unknown>>
}
