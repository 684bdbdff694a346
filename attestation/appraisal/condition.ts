/** Conditions of appraisal policies: CEL over the typed claims of evidence. `policies/condition.ts` is the language. */
import { type ConditionAnswer, ConditionCompiler } from '#policies/condition'
import type { Claims, Tee } from '../evidence/verdict.ts'
import { CLAIM_TYPES, type ClaimType } from './claim-types.ts'

export interface Condition {
  readonly name: string
  /** Kinds of evidence it speaks of; undefined: all. */
  readonly tees: readonly Tee[] | undefined
  readonly expression: string
  readonly remedy: string | undefined
  /** Compiled; true, false, or what kept it from being either. */
  readonly holds: (claims: Claims) => ConditionAnswer
}

const LOOPS = 2

/** What expressions may name, and how it reads in them. Made when first used, and kept: there are two. */
export class ConditionLanguage {
  readonly #variables: Readonly<Record<string, ClaimType>>
  #compiler: ConditionCompiler | undefined

  constructor(variables: Readonly<Record<string, ClaimType>>) {
    this.#variables = variables
  }

  /** Throws as `compileExpression`. */
  compile(expression: string): Condition['holds'] {
    this.#compiler ??= new ConditionCompiler({
      variables: this.#variables,
      loops: LOOPS,
      hint: 'docs/appraisal.md lists the claims and what conditions may use.',
    })
    return this.#compiler.compile(expression)
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
