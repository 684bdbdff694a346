/**
 * The signed text of cosign's "simple signing" signatures: which image, under which name.
 * Parsed only after the signature over its bytes has verified.
 */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { type Digest, parseDigest } from '#protocol/oci/digest'
import { asObject, asString } from '../json/fields.ts'
import { type JsonObject, parseStrictJson } from '../json/strict-json.ts'

export const SIMPLE_SIGNING_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json'
export const SIGNATURE_ANNOTATION = 'dev.cosignproject.cosign/signature'
const PAYLOAD_TYPE = 'cosign container image signature'

export interface SignedPayload {
  readonly manifestDigest: Digest
  /** As it stands there: a repository name for what cosign writes. */
  readonly dockerReference: string
}

/** Throws `MalformedError` ERR_IMAGE_SIGNATURE_FORMAT or ERR_JSON. */
export function parsePayload(bytes: Uint8Array, what: string): SignedPayload {
  const top = asObject(parseStrictJson(bytes, what), what)
  exactMembers(top, ['critical', 'optional'], ['critical'], what)
  const critical = asObject(top.critical, `${what}: critical`)
  exactMembers(critical, ['type', 'image', 'identity'], ['type', 'image', 'identity'], `${what}: critical`)
  if (critical.type !== PAYLOAD_TYPE) throw malformed(what, `critical.type is not "${PAYLOAD_TYPE}"`)
  const image = asObject(critical.image, `${what}: critical.image`)
  exactMembers(image, ['docker-manifest-digest'], ['docker-manifest-digest'], `${what}: critical.image`)
  const identity = asObject(critical.identity, `${what}: critical.identity`)
  exactMembers(identity, ['docker-reference'], ['docker-reference'], `${what}: critical.identity`)
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
      type: PAYLOAD_TYPE,
    },
    optional: null,
  }
  return new TextEncoder().encode(JSON.stringify(payload))
}

/** The annotation's base64, in which cosign tolerates line ends. */
export function decodeSignature(annotation: string, what: string): Uint8Array {
  return fromBase64(annotation.replaceAll(/[\r\n]/g, ''), what)
}

function exactMembers(value: JsonObject, allowed: readonly string[], needed: readonly string[], place: string): void {
  const names = Object.keys(value)
  const unknown = names.find((name) => !allowed.includes(name))
  if (unknown !== undefined) throw malformed(place, `unknown member ${JSON.stringify(unknown.slice(0, 100))}`)
  const missing = needed.find((name) => !names.includes(name))
  if (missing !== undefined) throw malformed(place, `no member "${missing}"`)
}

function malformed(place: string, why: string): MalformedError {
  return new MalformedError('ERR_IMAGE_SIGNATURE_FORMAT', `${place}: ${why}`)
}
