/**
 * What a sub-command is, and how its words are read. Sub-commands stay thin: they read options, call the part that
 * does the work, and print.
 */
import { parseArgs } from 'node:util'
import { UsageError } from '#protocol/errors'
import type { Output } from './output.ts'

export interface OptionSpec {
  readonly type: 'string' | 'boolean'
  readonly help: string
  /** Shown in the help: `--policy FILE`. */
  readonly placeholder?: string
  readonly multiple?: boolean
  readonly short?: string
  readonly default?: string
}

export interface CommandSpec {
  /** Words after `caisson`: "verifier serve". */
  readonly path: string
  readonly summary: string
  /** "IMAGE [-- ARGS]" */
  readonly operands: string
  readonly minOperands: number
  readonly maxOperands: number
  readonly options: Readonly<Record<string, OptionSpec>>
  /** At least one; printed by --help. */
  readonly examples: readonly string[]
  /** Returns the exit code. */
  run(invocation: Invocation): Promise<number>
}

type OptionValues = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>

export class Invocation {
  readonly operands: readonly string[]
  /** Words after `--`, or undefined when there was no `--`. */
  readonly passthrough: readonly string[] | undefined
  readonly out: Output
  readonly #values: OptionValues
  readonly #spec: CommandSpec

  constructor(
    spec: CommandSpec,
    parsed: {
      operands: readonly string[]
      passthrough: readonly string[] | undefined
      values: OptionValues
      out: Output
    },
  ) {
    this.#spec = spec
    this.operands = parsed.operands
    this.passthrough = parsed.passthrough
    this.out = parsed.out
    this.#values = parsed.values
  }

  /** Operand `index`; the parser has checked that required ones are there. */
  operand(index: number): string {
    return this.operands[index] ?? ''
  }

  flag(name: string): boolean {
    return this.#values[name] === true
  }

  string(name: string): string | undefined {
    const value = this.#values[name]
    return typeof value === 'string' ? value : this.#spec.options[name]?.default
  }

  required(name: string): string {
    const value = this.string(name)
    if (value === undefined) throw usage(this.#spec, `--${name} is required`)
    return value
  }

  strings(name: string): readonly string[] {
    const value = this.#values[name]
    return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : []
  }

  /** One of a few words. */
  oneOf<const T extends string>(name: string, values: readonly T[]): T {
    const text = this.required(name)
    const value = values.find((candidate) => candidate === text)
    if (value === undefined) {
      throw usage(this.#spec, `--${name} is ${JSON.stringify(text)}, expected one of: ${values.join(', ')}`)
    }
    return value
  }

  /** A whole number in a range. */
  integer(name: string, min: number, max: number): number {
    const text = this.required(name)
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw usage(this.#spec, `--${name} is ${JSON.stringify(text)}, expected a whole number from ${min} to ${max}`)
    }
    return value
  }
}

/** Reads the words after the command's path. Throws `UsageError` with the code `ERR_USAGE`. */
export function parseInvocation(spec: CommandSpec, words: readonly string[], out: Output): Invocation {
  const separator = words.indexOf('--')
  const own = separator < 0 ? words : words.slice(0, separator)
  const passthrough = separator < 0 ? undefined : words.slice(separator + 1)
  try {
    const { values, positionals } = parseArgs({
      args: [...own],
      allowPositionals: true,
      strict: true,
      options: {
        ...Object.fromEntries(
          Object.entries(spec.options).map(([name, { type, multiple = false, short }]) => [
            name,
            { type, multiple, ...(short === undefined ? {} : { short }) },
          ]),
        ),
        json: { type: 'boolean' },
      },
    })
    if (positionals.length < spec.minOperands || positionals.length > spec.maxOperands) {
      throw usage(spec, `expected ${spec.operands || 'no operands'}, got ${positionals.length} operands`)
    }
    return new Invocation(spec, { operands: positionals, passthrough, values, out })
  } catch (cause) {
    if (cause instanceof UsageError) throw cause
    throw usage(spec, cause instanceof Error ? cause.message : String(cause))
  }
}

function usage(spec: CommandSpec, problem: string): UsageError {
  return new UsageError('ERR_USAGE', `caisson ${spec.path}: ${problem}`, {
    hint: `See \`caisson ${spec.path} --help\`. Example: ${spec.examples[0] ?? ''}`,
  })
}

/** Text of --help. */
export function helpText(spec: CommandSpec): string {
  const options = { ...spec.options, json: { type: 'boolean', help: 'print JSON' } as const }
  const lines = Object.entries(options).map(([name, option]: [string, OptionSpec]) => {
    const left = `${option.short === undefined ? '' : `-${option.short}, `}--${name}${option.placeholder ? ` ${option.placeholder}` : ''}`
    const fallback = option.default === undefined ? '' : ` (default: ${option.default})`
    return `  ${left.padEnd(28)} ${option.help}${fallback}`
  })
  return [
    `usage: caisson ${spec.path} [options]${spec.operands === '' ? '' : ` ${spec.operands}`}`,
    '',
    spec.summary,
    '',
    'options:',
    ...lines,
    '',
    'examples:',
    ...spec.examples.map((example) => `  ${example}`),
    '',
  ].join('\n')
}
