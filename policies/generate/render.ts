/** A drafted policy as YAML, with its remarks as comments and its open choices as tagged values. */
import { Document, type Node, Pair, Scalar, YAMLMap, YAMLSeq } from 'yaml'
import { type Draft, type DraftMap, OpenChoice, Remarked } from './draft.ts'

/** The tag of a value that somebody has to decide; readers of policies refuse it with its question. */
export const CHOICE_TAG = '!choose'

export interface RenderedPolicy {
  readonly yaml: string
  readonly choices: readonly { readonly path: string; readonly question: string }[]
}

const LINE_WIDTH = 120

export function renderPolicy(policy: DraftMap, heading: string): RenderedPolicy {
  const choices: { path: string; question: string }[] = []
  const document = new Document()
  document.contents = build(policy, '', choices)
  document.commentBefore = ` ${heading}`
  return { yaml: document.toString({ lineWidth: LINE_WIDTH, flowCollectionPadding: false }), choices }
}

function build(draft: Draft, path: string, choices: { path: string; question: string }[]): Node {
  if (draft instanceof OpenChoice) {
    choices.push({ path, question: draft.question })
    const scalar = new Scalar(draft.question)
    scalar.tag = CHOICE_TAG
    scalar.type = Scalar.QUOTE_DOUBLE
    return scalar
  }
  if (draft instanceof Remarked) {
    const node = build(draft.value, path, choices)
    node.comment = ` ${draft.remark}`
    return node
  }
  if (isList(draft)) {
    const list = new YAMLSeq<Node>()
    list.items = draft.map((item, index) => build(item, `${path}[${index}]`, choices))
    // Commands and ports read best on one line, rules do not.
    list.flow = draft.every((item) => typeof item !== 'object' || isList(item))
    if (list.flow && draft.some((item) => isList(item) || hasLines(item))) list.flow = false
    return list
  }
  if (typeof draft === 'object') {
    const map = new YAMLMap<Scalar<string>, Node>()
    const entries = Object.entries(draft)
    map.items = entries.map(([key, value]) => {
      const node = build(value, path === '' ? key : `${path}.${key}`, choices)
      return new Pair(scalarOf(key), node)
    })
    map.flow = path !== '' && entries.length <= 4 && entries.every(([, value]) => isPlain(value) && !hasLines(value))
    return map
  }
  return scalarOf(draft)
}

function scalarOf<Value extends string | number | boolean>(value: Value): Scalar<Value> {
  const scalar = new Scalar(value)
  if (typeof value === 'string' && hasLines(value)) scalar.type = Scalar.BLOCK_LITERAL
  else if (typeof value === 'string' && needsQuotes(value)) scalar.type = Scalar.QUOTE_DOUBLE
  return scalar
}

function isList(draft: Draft): draft is readonly Draft[] {
  return Array.isArray(draft)
}

function isPlain(draft: Draft): boolean {
  return typeof draft !== 'object'
}

/** Scripts and keys are read line by line. */
function hasLines(draft: Draft): boolean {
  return typeof draft === 'string' && draft.includes('\n')
}

/** Text that another reader of YAML could take for a number, a time or a truth value. */
function needsQuotes(text: string): boolean {
  return /^[\d.+-]/.test(text) || /^(y|yes|n|no|on|off|true|false|null|~)$/i.test(text)
}
