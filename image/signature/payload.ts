/**
 * The signed text of "simple signing" (containers-signature(5)) and of cosign, which took it over with another type:
 * which image, under which name. Parsed only after the signature over its bytes has verified.
 */
import { MalformedError } from '#protocol/errors'
import { type Digest, parseDigest } from '#protocol/oci/digest'
import { asObject, asString } from '../json/fields.ts'
import { type JsonObject, type JsonValue, parseStrictJson } from '../json/strict-json.ts'

export const SIMPLE_SIGNING_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json'

const TYPES = {
  cosign: 'cosign container image signature',
  openpgp: 'atomic container signature',
} as const

export type PayloadKind = keyof typeof TYPES

export interface SignedPayload {
  readonly manifestDigest: Digest
  /** As it stands there: a repository name for what cosign writes, a full reference for what skopeo and podman write. */
  readonly dockerReference: string
}

/** Throws `MalformedError` ERR_IMAGE_SIGNATURE_FORMAT or ERR_JSON. */
export function parsePayload(bytes: Uint8Array, what: string, kind: PayloadKind = 'cosign'): SignedPayload {
  const top = exactly(parseStrictJson(bytes, what), ['critical', 'optional'], what)
  const critical = exactly(top.critical, ['type', 'image', 'identity'], `${what}: critical`)
  if (critical.type !== TYPES[kind]) throw malformed(what, `critical.type is not "${TYPES[kind]}"`)
  const image = exactly(critical.image, ['docker-manifest-digest'], `${what}: critical.image`)
  const identity = exactly(critical.identity, ['docker-reference'], `${what}: critical.identity`)
  checkOptional(top.optional, kind, what)
  return {
    manifestDigest: parseDigest(image['docker-manifest-digest'], `${what}: docker-manifest-digest`),
    dockerReference: asString(identity['docker-reference'], `${what}: docker-reference`),
  }
}

export function encodePayload({ manifestDigest, dockerReference }: SignedPayload): Uint8Array {
  const payload = {
    critical: {
      identity: { 'docker-reference': dockerReference },
      image: { 'docker-manifest-digest': manifestDigest },
      type: TYPES.cosign,
    },
    optional: null,
  }
  return new TextEncoder().encode(JSON.stringify(payload))
}

/** Of the free part two members have a type; cosign writes null where there is nothing. */
function checkOptional(value: JsonValue | undefined, kind: PayloadKind, what: string): void {
  if (value === null && kind === 'cosign') return
  const { creator, timestamp } = asObject(value, `${what}: optional`)
  if (creator !== undefined && typeof creator !== 'string') throw malformed(what, 'optional.creator is not a string')
  if (timestamp !== undefined && (typeof timestamp !== 'number' || !Number.isInteger(timestamp))) {
    throw malformed(what, 'optional.timestamp is not a whole number')
  }
}

/** An object with these members and no others. */
function exactly(value: JsonValue | undefined, names: readonly string[], place: string): JsonObject {
  const given = asObject(value, place)
  const unknown = Object.keys(given).find((name) => !names.includes(name))
  if (unknown !== undefined) throw malformed(place, `unknown member ${JSON.stringify(unknown.slice(0, 100))}`)
  const missing = names.find((name) => !(name in given))
  if (missing !== undefined) throw malformed(place, `no member "${missing}"`)
  return given
}

function malformed(place: string, why: string): MalformedError {
  return new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${place}: ${why}`)
}
