/**
 * Strict reading of a YAML policy document: every key is known or refused, every value has the expected type, and each
 * error names the path and the line, because a tenant has to mend it by hand. Anchors, aliases and tags are refused:
 * they make a document mean something else than it shows.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from 'yaml'
import { MalformedError } from '#protocol/errors'

/** Larger documents are refused before they are parsed. Bytes. */
export const MAX_POLICY_BYTES: number = 256 * 1024

/** One value of the document, with its path and place. */
export class PolicyNode {
  readonly #node: Node | null | undefined
  readonly #lines: LineCounter
  /** "containers[0].env" */
  readonly path: string

  constructor(node: Node | null | undefined, path: string, lines: LineCounter) {
    this.#node = node
    this.path = path
    this.#lines = lines
  }

  get line(): number {
    const offset = this.#node?.range?.[0]
    return offset === undefined ? 1 : this.#lines.linePos(offset).line
  }

  fail(problem: string, hint?: string): MalformedError {
    return new MalformedError(
      'ERR_POLICY_MALFORMED',
      `policy line ${this.line}: ${this.path || 'document'} ${problem}`,
      {
        hint,
      },
    )
  }

  /** The members of a mapping; keys outside `known` are refused with the list of known ones. */
  fields(known: readonly string[]): Map<string, PolicyNode> {
    const members = this.entries()
    for (const [key, value] of members) {
      if (!known.includes(key)) {
        throw value.fail('is not a known key', `Known keys here: ${known.join(', ')}.`)
      }
    }
    return members
  }

  /** The members of a mapping whose keys are the tenant's. */
  entries(): Map<string, PolicyNode> {
    if (!isMap(this.#node)) throw this.fail('must be a mapping')
    const members = new Map<string, PolicyNode>()
    for (const pair of this.#node.items) {
      if (!isScalar(pair.key) || typeof pair.key.value !== 'string') throw this.fail('has a key that is not a string')
      const key = pair.key.value
      const path = this.path === '' ? key : `${this.path}.${key}`
      members.set(key, new PolicyNode((pair.value ?? undefined) as Node | undefined, path, this.#lines))
    }
    return members
  }

  items(): PolicyNode[] {
    if (!isSeq(this.#node)) throw this.fail('must be a list')
    return this.#node.items.map((item, index) => new PolicyNode(item as Node, `${this.path}[${index}]`, this.#lines))
  }

  isList(): boolean {
    return isSeq(this.#node)
  }

  isMapping(): boolean {
    return isMap(this.#node)
  }

  string(): string {
    if (!isScalar(this.#node) || typeof this.#node.value !== 'string') {
      throw this.fail('must be a string', 'Quote numbers and booleans that are meant as text.')
    }
    return this.#node.value
  }

  /** A string or a number as it is written: quantities are often both. */
  scalarText(): string {
    if (!isScalar(this.#node)) throw this.fail('must be a single value')
    const { value, source } = this.#node
    if (typeof value === 'string') return value
    if (typeof value === 'number') return source ?? String(value)
    throw this.fail('must be a string or a number')
  }

  boolean(): boolean {
    if (!isScalar(this.#node) || typeof this.#node.value !== 'boolean') throw this.fail('must be true or false')
    return this.#node.value
  }

  integer(min: number, max: number): number {
    const value = isScalar(this.#node) ? this.#node.value : undefined
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
      throw this.fail(`must be a whole number from ${min} to ${max}`)
    }
    return value
  }

  oneOf<const T extends string>(values: readonly T[]): T {
    const text = this.string()
    const found = values.find((value) => value === text)
    if (found === undefined) throw this.fail(`is ${JSON.stringify(text)}`, `Allowed: ${values.join(', ')}.`)
    return found
  }

  /** Plain JSON value of this node, for documents that another parser judges. */
  json(): unknown {
    return this.#node?.toJSON()
  }
}

/** Parses text into its root node. Throws `MalformedError` with the code `ERR_POLICY_MALFORMED`. */
export function parsePolicyDocument(text: string): PolicyNode {
  if (text.length > MAX_POLICY_BYTES) {
    throw new MalformedError(
      'ERR_POLICY_MALFORMED',
      `policy has ${text.length} characters, at most ${MAX_POLICY_BYTES}`,
    )
  }
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, version: '1.2', schema: 'core' })
  if (document.errors.length === 0) refuseOpenChoices(document, lines)
  const problem = document.errors[0] ?? document.warnings[0]
  if (problem !== undefined) {
    const line = problem.linePos?.[0].line ?? 1
    throw new MalformedError('ERR_POLICY_MALFORMED', `policy line ${line}: ${problem.message.split('\n')[0]}`, {
      cause: problem,
    })
  }
  visit(document, {
    Node(_key, node) {
      const tagged = node.tag?.startsWith('!') === true
      if (isAlias(node) || ('anchor' in node && node.anchor !== undefined) || tagged) {
        throw new PolicyNode(node, '', lines).fail(
          'uses an anchor, alias or tag',
          'Write the value out where it is used.',
        )
      }
    },
  })
  return new PolicyNode(document.contents as Node | null, '', lines)
}

/** What `caisson policy generate` could not know: its question is the best error there is. */
function refuseOpenChoices(document: ReturnType<typeof parseDocument>, lines: LineCounter): void {
  visit(document, {
    Scalar(_key, node) {
      if (node.tag !== '!choose') return
      throw new PolicyNode(node, '', lines).fail(
        `has a choice left open: ${String(node.value)}`,
        'Decide it: replace `!choose "…"` by the value.',
      )
    },
  })
}
