/**
 * JSON Canonicalization Scheme (RFC 8785): the one text that stands for a JSON value, so that both sides of a protocol
 * hash the same bytes. Members are sorted by UTF-16 code units, without white space; strings and numbers are spelt as
 * ECMAScript spells them, which is what section 3.2.2 prescribes.
 */
import { MalformedError } from './errors.ts'

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject
export interface JsonObject {
  readonly [member: string]: JsonValue
}

/** Deeper values are refused: nothing that is signed or hashed here nests more than a few levels. */
export const MAX_JSON_DEPTH = 32

/** Throws `MalformedError` ERR_JSON_CANONICAL on what has no canonical form: NaN, infinities, lone surrogates, depth. */
export function canonicalJson(value: JsonValue): string {
  return write(value, 0)
}

/** UTF-8 bytes of `canonicalJson`. */
export function canonicalJsonBytes(value: JsonValue): Uint8Array {
  return new TextEncoder().encode(canonicalJson(value))
}

function write(value: JsonValue, depth: number): string {
  if (depth > MAX_JSON_DEPTH) {
    throw new MalformedError('ERR_JSON_CANONICAL', `JSON nested deeper than ${MAX_JSON_DEPTH} levels`)
  }
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return writeString(value)
  if (typeof value === 'number') return writeNumber(value)
  if (isArray(value)) return `[${value.map((item) => write(item, depth + 1)).join(',')}]`
  const members = Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${writeString(name)}:${write(member, depth + 1)}`)
  return `{${members.join(',')}}`
}

function writeString(text: string): string {
  // RFC 8785 section 3.2.2.2: lone surrogates have no UTF-8 form.
  if (!text.isWellFormed()) throw new MalformedError('ERR_JSON_CANONICAL', 'JSON string with a lone surrogate')
  return JSON.stringify(text)
}

function writeNumber(number: number): string {
  if (!Number.isFinite(number)) throw new MalformedError('ERR_JSON_CANONICAL', `${number} is not a JSON number`)
  return JSON.stringify(number)
}

/** `Array.isArray` does not narrow a readonly array out of a union. */
function isArray(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value)
}
