/**
 * Conditions of appraisal policies: expressions in CEL (Common Expression Language) over typed claims. They are checked
 * when the policy is read, and bounded: a condition cannot loop beyond the claims it is given, and has no regular
 * expressions, whose cost a claim could drive up.
 */
import { type ASTNode, Environment, type ParseResult } from '@marcbachmann/cel-js'
import { errorText, MalformedError } from '#protocol/errors'
import type { Claims, ClaimValue, Tee } from '../evidence/verdict.ts'
import { CLAIM_TYPES, type ClaimType } from './claim-types.ts'

export interface Condition {
  readonly name: string
  /** Kinds of evidence it speaks of; undefined: all. */
  readonly tees: readonly Tee[] | undefined
  readonly expression: string
  readonly remedy: string | undefined
  /** Compiled; true, false, or what kept it from being either. */
  readonly holds: (claims: Claims) => { readonly answer: boolean } | { readonly problem: string }
}

export const CONDITION_LIMITS = { characters: 2048, comprehensions: 2, listItems: 1000 } as const

const LIMITS = { maxAstNodes: 256, maxDepth: 24, maxListElements: 256, maxMapEntries: 64, maxCallArguments: 8 }
const COMPREHENSIONS: ReadonlySet<string> = new Set(['all', 'exists', 'exists_one', 'map', 'filter'])
const CEL_TYPES = { string: 'string', int: 'int', bool: 'bool', list: 'list<dyn>', map: 'map<string, dyn>' } as const

/** What expressions may name, and how it reads in them. Compiled environments are kept: there are two. */
export class ConditionLanguage {
  readonly #variables: Readonly<Record<string, ClaimType>>
  #environment: Environment | undefined

  constructor(variables: Readonly<Record<string, ClaimType>>) {
    this.#variables = variables
  }

  /** Throws as `compileExpression`. */
  compile(expression: string): Condition['holds'] {
    if (expression.length > CONDITION_LIMITS.characters) {
      throw malformed(expression, `has ${expression.length} characters, at most ${CONDITION_LIMITS.characters}`)
    }
    this.#environment ??= newEnvironment(this.#variables)
    const parsed = parse(this.#environment, expression)
    checkCalls(expression, parsed.ast)
    const { valid, type, error } = parsed.check()
    if (!valid) throw malformed(expression, `is not well-typed: ${firstLine(error)}`)
    if (type !== 'bool' && type !== 'dyn') throw malformed(expression, `is of type ${String(type)}, not true or false`)
    return (claims) => evaluate(parsed, claims, this.#variables)
  }
}

const CLAIMS = new ConditionLanguage(
  Object.fromEntries(Object.entries(CLAIM_TYPES).map(([name, { type }]) => [name, type])),
)

/**
 * Throws `MalformedError` ERR_CONDITION: not CEL, not true or false, an unknown claim, a regular expression, too long or
 * too deep.
 */
export function compileExpression(expression: string): Condition['holds'] {
  return CLAIMS.compile(expression)
}

function evaluate(
  parsed: ParseResult,
  claims: Claims,
  variables: Readonly<Record<string, ClaimType>>,
): ReturnType<Condition['holds']> {
  const context: Record<string, unknown> = Object.create(null)
  for (const [name, value] of Object.entries(claims)) {
    if (value !== null && value !== undefined && Object.hasOwn(variables, name)) context[name] = celValue(value)
  }
  try {
    const answer: unknown = parsed(context)
    return typeof answer === 'boolean' ? { answer } : { problem: `the result is a ${typeof answer}, not true or false` }
  } catch (error) {
    return { problem: firstLine(error) }
  }
}

function parse(environment: Environment, expression: string): ParseResult {
  try {
    return environment.parse(expression)
  } catch (error) {
    throw malformed(expression, `is not CEL: ${firstLine(error)}`, error)
  }
}

function newEnvironment(variables: Readonly<Record<string, ClaimType>>): Environment {
  const made = new Environment({ limits: LIMITS })
  for (const [name, type] of Object.entries(variables)) made.registerVariable(name, CEL_TYPES[type])
  return made
}

function checkCalls(expression: string, root: ASTNode): void {
  let comprehensions = 0
  for (const node of nodesOf(root)) {
    if (node.op !== 'call' && node.op !== 'rcall') continue
    const [name] = node.args
    if (name === 'matches') throw malformed(expression, 'uses regular expressions, which are not part of conditions')
    if (COMPREHENSIONS.has(name)) comprehensions++
  }
  if (comprehensions > CONDITION_LIMITS.comprehensions) {
    throw malformed(expression, `has ${comprehensions} loops, at most ${CONDITION_LIMITS.comprehensions}`)
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

/** Whole numbers become CEL's int; lists are cut, which only a claim of our own making could need. */
function celValue(value: ClaimValue): unknown {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value
  if (Array.isArray(value)) {
    return value.slice(0, CONDITION_LIMITS.listItems).map((item: ClaimValue) => celValue(item))
  }
  if (typeof value === 'object' && value !== null) {
    return new Map(Object.entries(value).map(([name, member]) => [name, celValue(member)]))
  }
  return value
}

function firstLine(error: unknown): string {
  return errorText(error).split('\n')[0] ?? ''
}

function malformed(expression: string, problem: string, cause?: unknown): MalformedError {
  const text = expression.length > 80 ? `${expression.slice(0, 80)}…` : expression
  return new MalformedError('ERR_CONDITION', `condition ${JSON.stringify(text)} ${problem}`, {
    hint: 'docs/appraisal.md lists the claims and what conditions may use.',
    ...(cause === undefined ? {} : { cause }),
  })
}
