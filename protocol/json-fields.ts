/**
 * Typed, bounded reading of JSON that came from somewhere else. Every read names the member it wants and its limit; what
 * is missing, of another type or too long throws `MalformedError` with the code and the member's path.
 */
import { type JsonValue, MAX_JSON_DEPTH } from './canonical-json.ts'
import { MalformedError } from './errors.ts'

export type FieldErrorCode = `ERR_${string}`

export class JsonFields {
  readonly #members: Readonly<Record<string, unknown>>
  readonly #path: string
  readonly #code: FieldErrorCode

  /** @param path where this object sits, for messages: "attestation.runtime-data" */
  constructor(value: unknown, path: string, code: FieldErrorCode) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new MalformedError(code, `${path}: an object is needed, found ${kindOf(value)}`)
    }
    this.#members = { ...value }
    this.#path = path
    this.#code = code
  }

  /** Parses text of at most `maxChars` UTF-16 units whose top level is an object. */
  static parse(text: string, what: string, limits: { code: FieldErrorCode; maxChars: number }): JsonFields {
    if (text.length > limits.maxChars) {
      throw new MalformedError(limits.code, `${what}: ${text.length} characters, at most ${limits.maxChars} are read`)
    }
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (cause) {
      throw new MalformedError(limits.code, `${what}: not JSON`, { cause })
    }
    return new JsonFields(value, what, limits.code)
  }

  get path(): string {
    return this.#path
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#members, name) && this.#members[name] !== null
  }

  string(name: string, maxChars: number): string {
    return this.#text(this.#members[name], `${this.#path}.${name}`, maxChars)
  }

  /** One of a closed set of strings. */
  oneOf<const Choice extends string>(name: string, choices: readonly Choice[]): Choice {
    const text = this.string(name, 256)
    const choice = choices.find((candidate) => candidate === text)
    if (choice === undefined) {
      throw this.error(name, `${JSON.stringify(text)} is not one of ${choices.join(', ')}`)
    }
    return choice
  }

  integer(name: string, min: number, max: number): number {
    return this.#integer(this.#members[name], `${this.#path}.${name}`, min, max)
  }

  object(name: string): JsonFields {
    return new JsonFields(this.#members[name], `${this.#path}.${name}`, this.#code)
  }

  /** Undefined when the member is missing, null, or the empty string (KBS spells "no parameters" as ""). */
  optionalObject(name: string): JsonFields | undefined {
    return this.has(name) && this.#members[name] !== '' ? this.object(name) : undefined
  }

  strings(name: string, limits: { maxItems: number; maxChars: number }): string[] {
    return this.#array(name, limits.maxItems).map((item, index) =>
      this.#text(item, `${this.#path}.${name}[${index}]`, limits.maxChars),
    )
  }

  integers(name: string, limits: { maxItems: number; min: number; max: number }): number[] {
    return this.#array(name, limits.maxItems).map((item, index) =>
      this.#integer(item, `${this.#path}.${name}[${index}]`, limits.min, limits.max),
    )
  }

  objects(name: string, maxItems: number): JsonFields[] {
    return this.#array(name, maxItems).map(
      (item, index) => new JsonFields(item, `${this.#path}.${name}[${index}]`, this.#code),
    )
  }

  /** Any JSON value whose nesting stays within `MAX_JSON_DEPTH`. */
  json(name: string): JsonValue {
    return this.#json(this.#members[name], `${this.#path}.${name}`, 0)
  }

  names(): string[] {
    return Object.keys(this.#members)
  }

  /** Refuses members that are not listed. */
  only(names: readonly string[]): void {
    for (const name of this.names()) {
      if (!names.includes(name)) {
        throw this.error(name.slice(0, 64), `unknown member; known are ${names.join(', ')}`)
      }
    }
  }

  error(name: string, why: string): MalformedError {
    return new MalformedError(this.#code, `${this.#path}.${name}: ${why}`)
  }

  #array(name: string, maxItems: number): unknown[] {
    const value = this.#members[name]
    if (!Array.isArray(value)) throw this.error(name, `an array is needed, found ${kindOf(value)}`)
    if (value.length > maxItems) throw this.error(name, `${value.length} items, at most ${maxItems} are read`)
    return value
  }

  #text(value: unknown, path: string, maxChars: number): string {
    if (typeof value !== 'string') {
      throw new MalformedError(this.#code, `${path}: a string is needed, found ${kindOf(value)}`)
    }
    if (value.length > maxChars) {
      throw new MalformedError(this.#code, `${path}: ${value.length} characters, at most ${maxChars} are read`)
    }
    if (!value.isWellFormed()) throw new MalformedError(this.#code, `${path}: lone surrogate`)
    return value
  }

  #integer(value: unknown, path: string, min: number, max: number): number {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new MalformedError(this.#code, `${path}: a whole number from ${min} to ${max} is needed`)
    }
    return value
  }

  #json(value: unknown, path: string, depth: number): JsonValue {
    if (depth > MAX_JSON_DEPTH) throw new MalformedError(this.#code, `${path}: nested too deeply`)
    if (value === null || typeof value === 'boolean' || typeof value === 'number' || typeof value === 'string') {
      return value
    }
    if (Array.isArray(value)) return value.map((item) => this.#json(item, path, depth + 1))
    if (typeof value !== 'object') throw new MalformedError(this.#code, `${path}: a value is needed`)
    return Object.fromEntries(
      Object.entries(value).map(([name, member]) => [name, this.#json(member, path, depth + 1)]),
    )
  }
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  return Array.isArray(value) ? 'an array' : `a ${typeof value}`
}
