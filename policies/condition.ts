/**
 * Conditions: expressions in CEL (Common Expression Language) over named, typed values. They are checked when they are
 * read, and bounded: a condition cannot loop beyond the values it is given, has no regular expressions, whose cost a value
 * could drive up, and knows neither time nor chance. What cannot be answered is a problem, never an answer.
 */
import { type ASTNode, Environment, type ParseResult } from '@marcbachmann/cel-js'
import { errorText, MalformedError } from '#protocol/errors'

export type ConditionType = 'string' | 'int' | 'bool' | 'list' | 'map'

export type ConditionValue =
  | string
  | number
  | boolean
  | null
  | readonly ConditionValue[]
  | ReadonlyMap<string, string>
  | { readonly [name: string]: ConditionValue }

/** True, false, or what kept the condition from being either. */
export type ConditionAnswer = { readonly answer: boolean } | { readonly problem: string }

/** `values` do not change: they are read once for all conditions of a compiler. */
export type CompiledCondition = (values: Readonly<Record<string, ConditionValue>>) => ConditionAnswer

export interface ConditionLanguage {
  /** The variables there are, and what they hold. */
  readonly variables: Readonly<Record<string, ConditionType>>
  /** Loops (`all`, `exists`, `map`, …) in one condition at most. */
  readonly loops: number
  /** For errors: where the language is described. */
  readonly hint: string
}

export const CONDITION_CHARACTERS = 2048
/** Of one list or mapping; a value with more is left out. */
export const CONDITION_ITEMS = 1024

const LIMITS = { maxAstNodes: 256, maxDepth: 24, maxListElements: 256, maxMapEntries: 64, maxCallArguments: 8 }
const LOOPS: ReadonlySet<string> = new Set(['all', 'exists', 'exists_one', 'map', 'filter'])
const CEL_TYPES = { string: 'string', int: 'int', bool: 'bool', list: 'list<dyn>', map: 'map<string, dyn>' } as const

export class ConditionCompiler {
  readonly #language: ConditionLanguage
  readonly #environment: Environment
  readonly #contexts = new WeakMap<object, Record<string, unknown>>()

  constructor(language: ConditionLanguage) {
    this.#language = language
    this.#environment = new Environment({ limits: LIMITS })
    for (const [name, type] of Object.entries(language.variables)) {
      this.#environment.registerVariable(name, CEL_TYPES[type])
    }
  }

  /**
   * Throws `MalformedError` ERR_CONDITION: not CEL, not true or false, an unknown variable, a regular expression, too long
   * or too deep.
   */
  compile(expression: string): CompiledCondition {
    if (expression.length > CONDITION_CHARACTERS) {
      throw this.#malformed(expression, `has ${expression.length} characters, at most ${CONDITION_CHARACTERS}`)
    }
    const parsed = this.#parse(expression)
    this.#checkCalls(expression, parsed.ast)
    const { valid, type, error } = parsed.check()
    if (!valid) throw this.#malformed(expression, `is not well-typed: ${firstLine(error)}`)
    if (type !== 'bool' && type !== 'dyn') {
      throw this.#malformed(expression, `is of type ${String(type)}, not true or false`)
    }
    return (values) => this.#evaluate(parsed, values)
  }

  #evaluate(parsed: ParseResult, values: Readonly<Record<string, ConditionValue>>): ConditionAnswer {
    try {
      const answer: unknown = parsed(this.#context(values))
      return typeof answer === 'boolean'
        ? { answer }
        : { problem: `the result is a ${typeof answer}, not true or false` }
    } catch (error) {
      return { problem: firstLine(error) }
    }
  }

  /** Made once for all conditions on the same values. */
  #context(values: Readonly<Record<string, ConditionValue>>): Record<string, unknown> {
    const known = this.#contexts.get(values)
    if (known !== undefined) return known
    const context: Record<string, unknown> = Object.create(null)
    for (const [name, value] of Object.entries(values)) {
      // What is left out cannot be asked about; conditions on other values still can be answered.
      if (value === null || !Object.hasOwn(this.#language.variables, name) || isTooLong(value)) continue
      context[name] = celValue(value)
    }
    this.#contexts.set(values, context)
    return context
  }

  #parse(expression: string): ParseResult {
    try {
      return this.#environment.parse(expression)
    } catch (error) {
      throw this.#malformed(expression, `is not CEL: ${firstLine(error)}`, error)
    }
  }

  #checkCalls(expression: string, root: ASTNode): void {
    let loops = 0
    for (const node of nodesOf(root)) {
      if (node.op !== 'call' && node.op !== 'rcall') continue
      const [name] = node.args
      if (name === 'matches') {
        throw this.#malformed(expression, 'uses regular expressions, which are not part of conditions')
      }
      if (LOOPS.has(name)) loops++
    }
    if (loops > this.#language.loops) {
      throw this.#malformed(expression, `has ${loops} loops, at most ${this.#language.loops}`)
    }
  }

  #malformed(expression: string, problem: string, cause?: unknown): MalformedError {
    const text = expression.length > 80 ? `${expression.slice(0, 80)}…` : expression
    return new MalformedError('ERR_CONDITION', `condition ${JSON.stringify(text)} ${problem}`, {
      hint: this.#language.hint,
      ...(cause === undefined ? {} : { cause }),
    })
  }
}

/** Every node of the tree; `args` hold nodes, names, values, and lists of these. */
function nodesOf(root: ASTNode): Set<ASTNode> {
  const found = new Set<ASTNode>()
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) value.forEach(visit)
    else if (isNode(value) && !found.has(value)) {
      found.add(value)
      visit(value.args)
    }
  }
  visit(root)
  return found
}

function isNode(value: unknown): value is ASTNode {
  return typeof value === 'object' && value !== null && 'op' in value && 'args' in value
}

/** Whole numbers become CEL's int. */
function celValue(value: ConditionValue): unknown {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value
  // Text is text in CEL as well: what is many entries is taken as it is.
  if (value instanceof Map) return value
  if (Array.isArray(value)) return value.map((item: ConditionValue) => celValue(item))
  if (typeof value === 'object' && value !== null) {
    return new Map(Object.entries(value).map(([name, member]) => [name, celValue(member)]))
  }
  return value
}

/** Somewhere inside. A list cut short would answer for what was cut off. */
function isTooLong(value: ConditionValue): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (value instanceof Map) return value.size > CONDITION_ITEMS
  const members = Object.values(value)
  return members.length > CONDITION_ITEMS || members.some(isTooLong)
}

function firstLine(error: unknown): string {
  return errorText(error).split('\n')[0] ?? ''
}
