/**
 * JSON (RFC 8259) for documents that decide something: duplicate member names are refused, since two readers may
 * disagree about which one counts, and every error says where it is. Objects have no prototype.
 */
import { MalformedError } from '#protocol/errors'

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject
export interface JsonObject {
  readonly [name: string]: JsonValue
}

const MAX_DEPTH = 64
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
/** Everything a string may hold unescaped: no quote, no backslash, no control character (RFC 8259 7). */
const PLAIN = /[ !#-[\]-\u{10ffff}]*/uy
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}

/**
 * Throws `MalformedError` ERR_JSON with line and column, also for bytes that are not UTF-8.
 *
 * @param what name of the document, for messages
 */
export function parseStrictJson(source: string | Uint8Array, what: string): JsonValue {
  const reader = new JsonReader(typeof source === 'string' ? source : decodeUtf8(source, what), what)
  return reader.document()
}

function decodeUtf8(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new MalformedError('ERR_JSON', `${what}: not UTF-8`, { cause })
  }
}

class JsonReader {
  readonly #text: string
  readonly #what: string
  #at = 0

  constructor(text: string, what: string) {
    this.#text = text
    this.#what = what
  }

  document(): JsonValue {
    const value = this.#value(0)
    this.#space()
    if (this.#at !== this.#text.length) throw this.#error('unexpected text after the end')
    return value
  }

  #value(depth: number): JsonValue {
    if (depth > MAX_DEPTH) throw this.#error(`nested deeper than ${MAX_DEPTH} levels`)
    this.#space()
    switch (this.#text.charAt(this.#at)) {
      case '{':
        return this.#object(depth)
      case '[':
        return this.#array(depth)
      case '"':
        return this.#string()
      case 't':
        return this.#word('true', true)
      case 'f':
        return this.#word('false', false)
      case 'n':
        return this.#word('null', null)
      default:
        return this.#number()
    }
  }

  #object(depth: number): JsonObject {
    const members: Record<string, JsonValue> = Object.create(null)
    this.#at++
    if (this.#skipIf('}')) return members
    do {
      this.#space()
      if (this.#text.charAt(this.#at) !== '"') throw this.#error('expected a member name')
      const start = this.#at
      const name = this.#string()
      if (name in members) throw this.#error(`duplicate member ${JSON.stringify(name)}`, start)
      if (!this.#skipIf(':')) throw this.#error('expected ":"')
      members[name] = this.#value(depth + 1)
    } while (this.#skipIf(','))
    if (!this.#skipIf('}')) throw this.#error('expected "," or "}"')
    return members
  }

  #array(depth: number): JsonValue[] {
    const items: JsonValue[] = []
    this.#at++
    if (this.#skipIf(']')) return items
    do items.push(this.#value(depth + 1))
    while (this.#skipIf(','))
    if (!this.#skipIf(']')) throw this.#error('expected "," or "]"')
    return items
  }

  #string(): string {
    let value = ''
    this.#at++
    for (;;) {
      value += this.#match(PLAIN)
      const next = this.#text.charAt(this.#at)
      if (next === '"') {
        this.#at++
        return value
      }
      if (next !== '\\') throw this.#error(next === '' ? 'unterminated string' : 'control character in a string')
      value += this.#escape()
    }
  }

  #escape(): string {
    const letter = this.#text.charAt(this.#at + 1)
    if (letter === 'u') {
      const digits = this.#text.slice(this.#at + 2, this.#at + 6)
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw this.#error('bad \\u escape')
      this.#at += 6
      return String.fromCharCode(Number.parseInt(digits, 16))
    }
    const value = ESCAPES[letter]
    if (value === undefined) throw this.#error('bad escape')
    this.#at += 2
    return value
  }

  #number(): number {
    const digits = this.#match(NUMBER)
    if (digits === '') throw this.#error(this.#at >= this.#text.length ? 'unexpected end' : 'unexpected character')
    const value = Number(digits)
    if (!Number.isFinite(value)) throw this.#error('number out of range')
    return value
  }

  #word<T extends JsonValue>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#error('unexpected character')
    this.#at += word.length
    return value
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0] ?? ''
    this.#at += found.length
    return found
  }

  #space(): void {
    while (' \t\n\r'.includes(this.#text.charAt(this.#at) || '.')) this.#at++
  }

  #skipIf(mark: string): boolean {
    this.#space()
    if (this.#text.charAt(this.#at) !== mark) return false
    this.#at++
    return true
  }

  #error(why: string, at = this.#at): MalformedError {
    const before = this.#text.slice(0, at)
    const line = before.split('\n').length
    const column = at - before.lastIndexOf('\n')
    return new MalformedError('ERR_JSON', `${this.#what}: line ${line}, column ${column}: ${why}`)
  }
}
