/** Conditions of appraisal policies: CEL over the typed claims of evidence. `policies/condition.ts` is the language. */
import { type ConditionAnswer, ConditionCompiler } from '#policies/condition'
import type { Claims, Tee } from '../evidence/verdict.ts'
import { CLAIM_TYPES } from './claim-types.ts'

export interface Condition {
  readonly name: string
  /** Kinds of evidence it speaks of; undefined: all. */
  readonly tees: readonly Tee[] | undefined
  readonly expression: string
  readonly remedy: string | undefined
  /** Compiled; true, false, or what kept it from being either. */
  readonly holds: (claims: Claims) => ConditionAnswer
}

let compiler: ConditionCompiler | undefined

/**
 * Throws `MalformedError` ERR_CONDITION: not CEL, not true or false, an unknown claim, a regular expression, too long or
 * too deep.
 */
export function compileExpression(expression: string): Condition['holds'] {
  compiler ??= new ConditionCompiler({
    variables: Object.fromEntries(Object.entries(CLAIM_TYPES).map(([name, { type }]) => [name, type])),
    loops: 2,
    hint: 'docs/appraisal.md lists the claims and what conditions may use.',
  })
  return compiler.compile(expression)
}
