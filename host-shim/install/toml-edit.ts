/**
 * Settings written into an operator's TOML so that comments, order and every other byte stay. Each line of ours says that
 * it is, and one that took the place of the operator's carries it along: the edit can be taken back from the text alone,
 * also after the operator changed other lines.
 */
import { isDeepStrictEqual } from 'node:util'
import { UsageError } from '#protocol/errors'
import { parseStatements, parseToml, type Statement, type TomlTable } from './toml-lines.ts'

export type TomlValue = string | number | boolean | readonly string[]

export interface Setting {
  /** Empty: top level. */
  readonly table: readonly string[]
  readonly key: string
  readonly value: TomlValue
}

interface Change {
  readonly start: number
  readonly end: number
  readonly lines: string
}

const MARK = '# caisson node install'
/** For a line of ours that had to end the operator's last one first. */
const JOINED = ', after a line without end'

/**
 * The text with the settings in effect; settings that are in effect already change nothing.
 * @param text without edits of ours, see `stripEdits`
 * @throws MalformedError ERR_TOML, UsageError ERR_TOML_EDIT when the text is written in a way that only a person can change
 */
export function editToml(text: string, settings: readonly Setting[], what = 'the text'): string {
  const before = parseToml(text, what)
  const wanted = settings.filter(({ table, key, value }) => !isDeepStrictEqual(valueAt(before, [...table, key]), value))
  if (wanted.length === 0) return text
  const edited = write(text, parseStatements(text, what), wanted)
  if (!takesEffect(edited, withSettings(before, wanted)) || stripEdits(edited) !== text) {
    throw new UsageError('ERR_TOML_EDIT', `${what} cannot be changed without rewriting it`, {
      hint: `Write its inline tables and dotted keys as [tables], or add by hand: ${wanted.map(assignment).join('; ')}`,
    })
  }
  return edited
}

/** The text as it was before `editToml`. A text without edits stays as it is. */
export function stripEdits(text: string): string {
  let result = ''
  let inBlock = false
  for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) {
    if (inBlock) {
      inBlock = line !== `${MARK}, end\n`
      continue
    }
    const mark = line.indexOf(MARK)
    const note = mark < 0 ? '' : line.slice(mark + MARK.length).trimEnd()
    const replaced = replacedLines(note)
    if (replaced !== undefined) result += replaced
    else if (/^, (?:begin|added)(?:, after a line without end)?$/.test(note)) {
      inBlock = note.startsWith(', begin')
      if (note.endsWith(JOINED)) result = result.slice(0, -1)
    } else result += line
  }
  return result
}

/** What `path` holds; undefined where nothing is. */
export function valueAt(table: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (value, word) => (isTable(value) && Object.hasOwn(value, word) ? value[word] : undefined),
    table,
  )
}

/** A file that holds nothing but the settings. */
export function writeToml(settings: readonly Setting[]): string {
  const tables = new Map<string, { table: readonly string[]; lines: string[] }>()
  for (const { table, key, value } of settings) {
    const name = JSON.stringify(table)
    const entry = tables.get(name) ?? { table, lines: [] }
    entry.lines.push(`${writeKey(key)} = ${writeValue(value)}\n`)
    tables.set(name, entry)
  }
  // Pairs of the top level belong before the first table.
  return [...tables.values()]
    .toSorted((a, b) => Number(a.table.length > 0) - Number(b.table.length > 0))
    .map(({ table, lines }) => (table.length === 0 ? '' : `[${table.map(writeKey).join('.')}]\n`) + lines.join(''))
    .join('\n')
}

function write(text: string, statements: readonly Statement[], wanted: readonly Setting[]): string {
  const changes: Change[] = []
  const added = new Map<number, string[]>()
  const appended: Setting[] = []
  for (const setting of wanted) {
    const pair = find(statements, 'pair', [...setting.table, setting.key])
    const place = placeOf(statements, setting.table)
    if (pair !== undefined) {
      const original = text.slice(pair.start, pair.end)
      const indent = /^[ \t]*/.exec(original)?.[0] ?? ''
      const lines = `${indent}${assignment(setting)} ${MARK}, before: ${JSON.stringify(original)}\n`
      changes.push({ start: pair.start, end: pair.end, lines })
    } else if (place === undefined) appended.push(setting)
    else added.set(place, [...(added.get(place) ?? []), assignment(setting)])
  }
  for (const [start, lines] of added) {
    const joined = start > 0 && text[start - 1] !== '\n'
    const marked = lines.map((line, index) => `${line} ${MARK}, added${joined && index === 0 ? JOINED : ''}\n`)
    changes.push({ start, end: start, lines: (joined ? '\n' : '') + marked.join('') })
  }
  let result = text
  for (const { start, end, lines } of changes.toSorted((a, b) => b.start - a.start || b.end - a.end)) {
    result = result.slice(0, start) + lines + result.slice(end)
  }
  if (appended.length === 0) return result
  const joined = result !== '' && !result.endsWith('\n')
  const begin = `${joined ? '\n' : ''}${MARK}, begin${joined ? JOINED : ''}\n`
  return `${result}${begin}${writeToml(appended)}${MARK}, end\n`
}

/** Offset at which a pair of `table` can be added; undefined when the text has no header of it. */
function placeOf(statements: readonly Statement[], table: readonly string[]): number | undefined {
  if (table.length > 0) return find(statements, 'table', table)?.end
  const [first] = statements
  return first?.kind === 'pair' ? first.end : 0
}

function find(
  statements: readonly Statement[],
  kind: Statement['kind'],
  path: readonly string[],
): Statement | undefined {
  return statements.find((each) => each.kind === kind && !each.inArray && isDeepStrictEqual(each.path, path))
}

/** What a note says was there before. */
function replacedLines(note: string): string | undefined {
  if (!note.startsWith(', before: ')) return undefined
  try {
    const value: unknown = JSON.parse(note.slice(', before: '.length))
    return typeof value === 'string' ? value : undefined
  } catch {
    return undefined
  }
}

function takesEffect(edited: string, expected: TomlTable): boolean {
  try {
    return isDeepStrictEqual(plain(parseToml(edited)), plain(expected))
  } catch {
    return false
  }
}

function withSettings(table: TomlTable, settings: readonly Setting[]): TomlTable {
  const result = structuredClone(plain(table)) as Record<string, unknown>
  for (const { table: path, key, value } of settings) {
    let target = result
    for (const word of path) {
      if (!Object.hasOwn(target, word)) define(target, word, {})
      const next = target[word]
      // A value where a table must be: the comparison that follows refuses it.
      if (!isTable(next)) break
      target = next
    }
    define(target, key, value)
  }
  return result
}

/** "__proto__" is a key like any other. */
function define(target: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, enumerable: true, writable: true, configurable: true })
}

/** Dates as texts, prototypes gone: for comparison. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain)
  if (!isTable(value)) return value instanceof Date ? value.toISOString() : value
  const result: Record<string, unknown> = {}
  for (const [key, inner] of Object.entries(value)) define(result, key, plain(inner))
  return result
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

function assignment({ key, value }: Setting): string {
  return `${writeKey(key)} = ${writeValue(value)}`
}

function writeKey(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : writeValue(key)
}

/** A JSON string is a TOML basic string but for one character that TOML wants escaped. */
function writeValue(value: TomlValue): string {
  return JSON.stringify(value).replaceAll('\u007f', '\\u007f')
}
