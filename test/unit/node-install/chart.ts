/**
 * Renders the Helm chart, as far as its templates go: values, `quote`, `if` and `range` over a list. Anything else is an
 * error, so that the chart stays simple enough to be checked here.
 */
import { globSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse, parseAllDocuments } from 'yaml'

export const DEPLOY: string = fileURLToPath(new URL('../../../deploy/', import.meta.url))

export type Manifest = Readonly<Record<string, unknown>>

interface Scope {
  readonly root: unknown
  readonly item: unknown
}

/** Text of one template. @param namespace of the release */
export function renderTemplate(name: string, values: unknown, namespace: string): string {
  const template = readFileSync(`${DEPLOY}helm/caisson/templates/${name}.yaml`, 'utf8')
  const root = { Values: values, Release: { Namespace: namespace } }
  // `{{-` takes the white space before it along.
  const parts = template.replaceAll(/\s*\{\{-/g, '{{').split(/\{\{\s*(.*?)\s*\}\}/)
  const { text, next } = block(parts, 0, { root, item: undefined })
  if (next < parts.length) throw new Error(`${name}: an end too many`)
  return text
}

export function chartValues(changes: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  return { ...(parse(readFileSync(`${DEPLOY}helm/caisson/values.yaml`, 'utf8')) as object), ...changes }
}

export function manifestsOf(text: string): readonly Manifest[] {
  return parseAllDocuments(text, { strict: true, uniqueKeys: true }).flatMap((document) => {
    if (document.errors.length > 0) throw document.errors[0]
    const value: unknown = document.toJS()
    return value === null ? [] : [value as Manifest]
  })
}

/** Every plain manifest by the name of its file. */
export function plainManifests(): ReadonlyMap<string, readonly Manifest[]> {
  const files = globSync(`${DEPLOY}plain/*.yaml`).toSorted()
  return new Map(files.map((file) => [basename(file, '.yaml'), manifestsOf(readFileSync(file, 'utf8'))]))
}

/** Even parts are text, odd ones actions. */
function block(parts: readonly string[], from: number, scope: Scope): { text: string; next: number } {
  let text = parts[from] ?? ''
  let at = from + 1
  while (at < parts.length) {
    const action = parts[at] ?? ''
    if (action === 'end') return { text, next: at }
    const [, word, path] = /^(if|range) (\S+)$/.exec(action) ?? []
    if (word === undefined) {
      text += print(action, scope) + (parts[at + 1] ?? '')
      at += 2
      continue
    }
    const value = lookUp(path ?? '', scope)
    const items = word === 'if' ? (value === true ? [scope.item] : []) : (value as readonly unknown[])
    const skipped = block(parts, at + 1, { ...scope, item: '' })
    for (const item of items) text += block(parts, at + 1, { ...scope, item }).text
    text += parts[skipped.next + 1] ?? ''
    at = skipped.next + 2
  }
  return { text, next: at }
}

function print(action: string, scope: Scope): string {
  const [, path = '', quote] = /^(\.\S*)( \| quote)?$/.exec(action) ?? []
  const value = lookUp(path, scope)
  if (typeof value !== 'string' && typeof value !== 'number') throw new Error(`{{ ${action} }} is no text`)
  return quote === undefined ? String(value) : JSON.stringify(String(value))
}

function lookUp(path: string, { root, item }: Scope): unknown {
  if (path === '.') return item
  return path
    .slice(1)
    .split('.')
    .reduce<unknown>((value, word) => (value as Record<string, unknown> | undefined)?.[word], root)
}
