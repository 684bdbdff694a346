/**
 * Shared parts of policies, put in place on the tenant's machine: what reaches a guest is one document, so that its digest
 * covers everything and a reader sees everything. Nothing overrides: mappings and lists are joined, and a value that is
 * written in two places is refused, because one of them would be ignored.
 */
import {
  type Document,
  isCollection,
  isMap,
  isScalar,
  isSeq,
  Pair,
  parseDocument,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml'
import { MalformedError } from '#protocol/errors'
import { type PolicyNode, parsePolicyDocument } from './document.ts'

const MAX_FILES = 16
const ROOT_KEYS = ['apiVersion', 'kind', 'parts', 'containers', 'imagePolicy']
/** A list that is one value. */
const WHOLE_LISTS: ReadonlySet<string> = new Set(['args'])

/**
 * The document with its includes put in place; without any it is returned as it is. Comments and order stay.
 *
 * @param read gives the text of an included file by its name, relative to the document
 * @throws MalformedError ERR_POLICY_MALFORMED, naming the file
 */
export function resolveIncludes(text: string, read: (name: string) => string): string {
  const root = parsePolicyDocument(text)
  const names = root.isMapping() ? includedNames(root.entries().get('include')) : []
  const document = parseDocument(text, { version: '1.2', schema: 'core' })
  const parts = new Map<string, YAMLMap>()
  for (const name of names) {
    const included = within(name, () => readParts(read(name)))
    for (const [part, fields] of included.parts) {
      if (parts.has(part)) throw malformed(name, `repeats the part ${JSON.stringify(part)}`)
      parts.set(part, fields)
    }
    addContainers(document, included.containers)
    if (included.imagePolicy !== undefined) {
      if (document.has('imagePolicy')) throw malformed(name, 'has a second imagePolicy')
      document.set('imagePolicy', included.imagePolicy)
    }
  }
  const used = usedParts(document, parts)
  if (names.length === 0 && used === 0) return text
  document.delete('include')
  return document.toString({ lineWidth: 0, flowCollectionPadding: false })
}

function includedNames(node: PolicyNode | undefined): readonly string[] {
  const names = node?.items().map((item) => item.string()) ?? []
  if (node !== undefined && (names.length === 0 || names.length > MAX_FILES)) {
    throw node.fail(`must name 1 to ${MAX_FILES} files`)
  }
  return names
}

interface Included {
  readonly parts: ReadonlyMap<string, YAMLMap>
  readonly containers: YAMLSeq | undefined
  readonly imagePolicy: unknown
}

function readParts(text: string): Included {
  const root = parsePolicyDocument(text)
  const fields = root.fields(ROOT_KEYS)
  for (const [key, value] of [
    ['apiVersion', 'caisson/v1'],
    ['kind', 'WorkloadPolicyParts'],
  ] as const) {
    const field = fields.get(key)
    if (field === undefined) throw root.fail(`lacks the key ${key}`)
    field.oneOf([value])
  }
  for (const part of fields.get('parts')?.entries().values() ?? []) {
    if (!part.isMapping()) throw part.fail('must be a mapping of fields of a container')
  }
  fields.get('containers')?.items()
  const document = parseDocument(text, { version: '1.2', schema: 'core' })
  const parts = document.get('parts')
  const containers = document.get('containers')
  return {
    parts: new Map(
      (isMap(parts) ? parts.items : []).flatMap(({ key, value }) => (isMap(value) ? [[String(key), value]] : [])),
    ),
    containers: isSeq(containers) ? containers : undefined,
    imagePolicy: document.get('imagePolicy', true),
  }
}

function addContainers(document: Document, more: YAMLSeq | undefined): void {
  if (more === undefined) return
  const containers = document.get('containers')
  if (isSeq(containers)) containers.items.push(...more.items)
  else document.set('containers', more)
}

/** How many containers use parts. */
function usedParts(document: Document, parts: ReadonlyMap<string, YAMLMap>): number {
  const containers = document.get('containers')
  let used = 0
  for (const container of isSeq(containers) ? containers.items : []) {
    if (!isMap(container) || !container.has('use')) continue
    const name = String(container.get('name'))
    const uses = container.get('use')
    if (!isSeq(uses) || uses.items.length === 0) throw malformed(`containers.${name}.use`, 'must be a list of parts')
    container.delete('use')
    for (const item of uses.items) {
      const part = parts.get(isScalar(item) ? String(item.value) : '')
      if (part === undefined) {
        throw malformed(`containers.${name}.use`, `names ${String(item)}, which is no part of an included file`)
      }
      join(container, part, `containers.${name}`)
    }
    used++
  }
  return used
}

function join(into: YAMLMap, from: YAMLMap, path: string): void {
  for (const { key, value } of from.items) {
    const name = String(key)
    const place = `${path}.${name}`
    const known = into.get(name)
    if (!into.has(name)) {
      into.items.push(new Pair(key, isCollection(value) ? value.clone() : value))
    } else if (isMap(known) && isMap(value)) join(known, value, place)
    else if (isSeq(known) && isSeq(value) && !WHOLE_LISTS.has(name)) known.items.push(...value.items)
    else {
      throw malformed(place, 'is written here and in a part that is used', 'Write it in one place: nothing overrides.')
    }
  }
}

function within<T>(name: string, action: () => T): T {
  try {
    return action()
  } catch (error) {
    if (!(error instanceof MalformedError) || error.code !== 'ERR_POLICY_MALFORMED') throw error
    throw malformed(name, error.message, error.hint)
  }
}

function malformed(place: string, problem: string, hint?: string): MalformedError {
  return new MalformedError('ERR_POLICY_MALFORMED', `${place}: ${problem}`, hint === undefined ? {} : { hint })
}
