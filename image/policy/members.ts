/** Typed reading of a policy's JSON: every refusal is ERR_IMAGE_POLICY and names the member's place. */
import { fromBase64 } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import type { JsonObject, JsonValue } from '../json/strict-json.ts'
import type { ConfiguredBytes } from './policy.ts'

const MAX_ITEMS = 64

export function object(value: JsonValue | undefined, place: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(place, 'must be an object')
  return value as JsonObject
}

/** An object with no other members than `allowed`. */
export function members(value: JsonValue | undefined, place: string, allowed: readonly string[]): JsonObject {
  const given = object(value, place)
  const unknown = Object.keys(given).find((name) => !allowed.includes(name))
  if (unknown !== undefined) throw malformed(place, `unknown member ${JSON.stringify(unknown.slice(0, 100))}`)
  return given
}

/** The one of `names` that is there. */
export function oneOf<Name extends string>(given: JsonObject, place: string, names: readonly Name[]): Name {
  const first = atMostOneOf(given, place, names)
  if (first === undefined) throw malformed(place, `needs exactly one of ${names.join(', ')}`)
  return first
}

export function atMostOneOf<Name extends string>(
  given: JsonObject,
  place: string,
  names: readonly Name[],
): Name | undefined {
  const present = names.filter((name) => given[name] !== undefined)
  if (present.length > 1) throw malformed(place, `${present.join(' and ')} exclude each other`)
  return present[0]
}

export function text(value: JsonValue | undefined, place: string): string {
  if (typeof value !== 'string' || value === '') throw malformed(place, 'must be a non-empty string')
  return value
}

export function optionalText(value: JsonValue | undefined, place: string): string | undefined {
  return value === undefined ? undefined : text(value, place)
}

export function texts(value: JsonValue | undefined, place: string): readonly string[] {
  return list(value, place).map((item, index) => text(item, `${place}[${index}]`))
}

export function list(value: JsonValue | undefined, place: string): readonly JsonValue[] {
  if (!Array.isArray(value) || value.length === 0) throw malformed(place, 'must be a non-empty array')
  if (value.length > MAX_ITEMS) throw malformed(place, `more than ${MAX_ITEMS} items`)
  return value
}

/**
 * A member whose name says where its bytes are: "…Path", "…Paths", "…Data" or "…Datas".
 *
 * Data is base64, as containers-policy.json(5) says; PEM and JSON as they are too, since Confidential Containers'
 * image-rs takes keys so, and neither is ever valid base64.
 */
export function configuredBytes(given: JsonObject, name: string, place: string): readonly ConfiguredBytes[] {
  const here = `${place}.${name}`
  const several = name.endsWith('s')
  const values = several ? texts(given[name], here) : [text(given[name], here)]
  return values.map((value, index): ConfiguredBytes => {
    if (/Paths?$/.test(name)) return { kind: 'path', path: value }
    const start = value.trimStart()
    if (start.startsWith('-----BEGIN ') || start.startsWith('{')) {
      return { kind: 'inline', bytes: new TextEncoder().encode(value) }
    }
    return { kind: 'inline', bytes: base64(value, several ? `${here}[${index}]` : here) }
  })
}

function base64(value: string, place: string): Uint8Array {
  try {
    // Go's decoder, which the manual page stands on, skips line ends.
    return fromBase64(value.replaceAll(/[\r\n]/g, ''), place)
  } catch (cause) {
    throw malformed(place, 'is neither base64 nor PEM', cause)
  }
}

export function malformed(place: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_IMAGE_POLICY', `image policy: ${place}: ${why}`, {
    hint: 'The form is that of containers-policy.json(5). A policy that is not understood admits nothing.',
    ...(cause === undefined ? {} : { cause }),
  })
}
