/** Typed reading of parsed JSON. Every refusal names the place; null and absence are the same, as Go's encoders mix them. */
import { MalformedError } from '#protocol/errors'
import type { JsonObject, JsonValue } from './strict-json.ts'

export function asObject(value: JsonValue | undefined, place: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrongType(place, 'an object')
  return value as JsonObject
}

export function asArray(value: JsonValue | undefined, place: string, maxItems: number): readonly JsonValue[] {
  if (!Array.isArray(value)) throw wrongType(place, 'an array')
  if (value.length > maxItems) {
    throw new MalformedError('ERR_IMAGE_DOCUMENT', `${place}: ${value.length} items, at most ${maxItems}`)
  }
  return value
}

export function asString(value: JsonValue | undefined, place: string): string {
  if (typeof value !== 'string') throw wrongType(place, 'a string')
  // No member read here may hold NUL, and everything below the kernel boundary would cut the text there.
  if (value.includes('\0')) throw new MalformedError('ERR_IMAGE_DOCUMENT', `${place}: holds a NUL character`)
  return value
}

export function optionalString(value: JsonValue | undefined, place: string): string {
  return value === undefined || value === null ? '' : asString(value, place)
}

export function optionalStrings(value: JsonValue | undefined, place: string, maxItems: number): readonly string[] {
  if (value === undefined || value === null) return []
  return asArray(value, place, maxItems).map((item, index) => asString(item, `${place}[${index}]`))
}

/** Names of a JSON object used as a set: {"8443/tcp": {}}. */
export function optionalKeys(value: JsonValue | undefined, place: string, maxItems: number): readonly string[] {
  if (value === undefined || value === null) return []
  const keys = Object.keys(asObject(value, place))
  if (keys.length > maxItems) {
    throw new MalformedError('ERR_IMAGE_DOCUMENT', `${place}: ${keys.length} members, at most ${maxItems}`)
  }
  return keys.map((key) => asString(key, place))
}

export function optionalStringMap(value: JsonValue | undefined, place: string): ReadonlyMap<string, string> {
  if (value === undefined || value === null) return new Map()
  const members = Object.entries(asObject(value, place))
  return new Map(members.map(([name, text]) => [name, asString(text, `${place}.${name.slice(0, 100)}`)]))
}

function wrongType(place: string, wanted: string): MalformedError {
  return new MalformedError('ERR_IMAGE_DOCUMENT', `${place}: must be ${wanted}`)
}
