/** The property that every parser has: whatever it reads, it answers with a value that keeps a promise, or refuses. */
import type { ExecutionContext } from 'ava'
import fc from 'fast-check'
import { CaissonError } from '#protocol/errors'

const RUNS = 300

/** `promise` is about accepted values; a refusal must be one of ours, with a code. */
export function refusesOrKeeps<Input, Value>(
  t: ExecutionContext,
  inputs: fc.Arbitrary<Input>,
  parse: (input: Input) => Value,
  promise: (value: Value, input: Input) => boolean = () => true,
): void {
  fc.assert(
    fc.property(inputs, (input) => {
      let value: Value
      try {
        value = parse(input)
      } catch (error) {
        return error instanceof CaissonError && /^ERR_[A-Z0-9_]+$/.test(error.code)
      }
      return promise(value, input)
    }),
    { numRuns: RUNS },
  )
  t.pass()
}

/** A good text with a piece replaced, or any JSON, or anything. */
export function damaged(good: string): fc.Arbitrary<string> {
  const changed = fc
    .tuple(fc.nat(good.length), fc.nat(8), fc.oneof(fc.string({ maxLength: 6 }), fc.json({ maxDepth: 1 })))
    .map(([at, length, piece]) => good.slice(0, at) + piece + good.slice(at + length))
  return fc.oneof({ weight: 4, arbitrary: changed }, fc.constant(good), fc.json(), fc.string({ unit: 'binary' }))
}

/** An object with one member of `good` replaced, missing, or added. */
export function altered(good: Readonly<Record<string, unknown>>): fc.Arbitrary<unknown> {
  const changed = fc
    .tuple(fc.constantFrom(...Object.keys(good), 'unknown'), fc.jsonValue({ maxDepth: 2 }))
    .map(([name, value]) => ({ ...good, [name]: value }))
  const missing = fc
    .constantFrom(...Object.keys(good))
    .map((name) => Object.fromEntries(Object.entries(good).filter(([other]) => other !== name)))
  return fc.oneof({ weight: 4, arbitrary: changed }, missing, fc.constant(good), fc.jsonValue())
}
