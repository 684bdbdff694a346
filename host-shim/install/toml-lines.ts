/**
 * Where each statement of a TOML text stands, so that a text can be changed in one place and keep every other byte.
 * What the statements mean is the parser's business: this reads only texts that it accepted.
 */
import { parse } from 'smol-toml'
import { MalformedError } from '#protocol/errors'

export type TomlTable = Readonly<Record<string, unknown>>

export interface Statement {
  readonly kind: 'table' | 'array-table' | 'pair'
  /** Of a table its name; of a pair the name of its table and its own. */
  readonly path: readonly string[]
  /** Below `[[…]]`: the path does not say which element. */
  readonly inArray: boolean
  /** Offset of the first line's start. */
  readonly start: number
  /** Offset after the last line's end. */
  readonly end: number
}

/** Far beyond any configuration that a person wrote. */
const MAX_BYTES = 1024 * 1024

/** @throws MalformedError ERR_TOML */
export function parseToml(text: string, what = 'the text'): TomlTable {
  if (text.length > MAX_BYTES) throw malformed(what, `is larger than ${MAX_BYTES} bytes`)
  try {
    return parse(text)
  } catch (cause) {
    throw malformed(what, 'is no valid TOML', cause)
  }
}

/** Statements in the order of the text. @throws MalformedError ERR_TOML */
export function parseStatements(text: string, what?: string): readonly Statement[] {
  parseToml(text, what)
  const statements: Statement[] = []
  let table: readonly string[] = []
  const arrays: (readonly string[])[] = []
  for (let at = 0; at < text.length; ) {
    const start = at
    while (text[at] === ' ' || text[at] === '\t') at++
    const character = text[at]
    if (character === undefined || character === '\n' || character === '\r' || character === '#') {
      at = afterLine(text, at)
      continue
    }
    if (character === '[') {
      const isArray = text.startsWith('[[', at)
      const nameStart = at + (isArray ? 2 : 1)
      const nameEnd = indexOfUnquoted(text, nameStart, ']')
      table = keyPath(text.slice(nameStart, nameEnd))
      if (isArray) arrays.push(table)
      at = afterLine(text, nameEnd)
      const path = table
      const inArray = isArray || isBelow(arrays, path)
      statements.push({ kind: isArray ? 'array-table' : 'table', path, inArray, start, end: at })
      continue
    }
    const equals = indexOfUnquoted(text, at, '=')
    const path = [...table, ...keyPath(text.slice(at, equals))]
    at = afterValue(text, equals + 1)
    statements.push({ kind: 'pair', path, inArray: isBelow(arrays, table), start, end: at })
  }
  return statements
}

function isBelow(arrays: readonly (readonly string[])[], path: readonly string[]): boolean {
  return arrays.some((array) => array.every((word, index) => path[index] === word))
}

/** `a."b c".d` as its words; the parser knows the rules of quoting. */
function keyPath(key: string): readonly string[] {
  const words: string[] = []
  for (let value: unknown = parse(`${key.trim()} = 0`); typeof value === 'object' && value !== null; ) {
    const [[word, inner] = ['', undefined]] = Object.entries(value)
    words.push(word)
    value = inner
  }
  return words
}

function indexOfUnquoted(text: string, from: number, wanted: string): number {
  for (let at = from; at < text.length; ) {
    const character = text[at]
    if (character === wanted) return at
    at = character === '"' || character === "'" ? afterString(text, at) : at + 1
  }
  return text.length
}

/** A value ends with its line, unless a bracket is open or a string goes on. */
function afterValue(text: string, from: number): number {
  let depth = 0
  for (let at = from; at < text.length; ) {
    const character = text[at] ?? ''
    if (character === '"' || character === "'") at = afterString(text, at)
    else if (character === '#') at = afterLine(text, at) - (text[afterLine(text, at) - 1] === '\n' ? 1 : 0)
    else if (character === '\n' && depth === 0) return at + 1
    else {
      if (character === '[' || character === '{') depth++
      if (character === ']' || character === '}') depth--
      at++
    }
  }
  return text.length
}

function afterString(text: string, from: number): number {
  const quote = text[from] ?? ''
  const fence = text.startsWith(quote.repeat(3), from) ? quote.repeat(3) : quote
  let at = from + fence.length
  while (at < text.length && !text.startsWith(fence, at)) at += quote === '"' && text[at] === '\\' ? 2 : 1
  at += fence.length
  // `"""a""""`: up to two quotes before the fence belong to the string.
  if (fence.length === 3) for (let more = 0; more < 2 && text[at] === quote; more++) at++
  return Math.min(at, text.length)
}

function afterLine(text: string, from: number): number {
  const newline = text.indexOf('\n', from)
  return newline < 0 ? text.length : newline + 1
}

function malformed(what: string, why: string, cause?: unknown): MalformedError {
  return new MalformedError('ERR_TOML', `${what} ${why}`, {
    hint: 'Mend it by hand; `containerd config dump` says what containerd reads',
    ...(cause === undefined ? {} : { cause }),
  })
}
