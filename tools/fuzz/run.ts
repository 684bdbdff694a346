/** One run of one fuzzer: starts libFuzzer on the seeds of the repository and reads what it says. */
import { spawn } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Fuzzer } from './fuzzers.ts'

const SEEDS = fileURLToPath(new URL('../../test/fuzz/corpus/', import.meta.url))
/** One input that takes longer is a finding. */
const INPUT_SECONDS = 10
const MEMORY_MIB = 2048
/** Last lines kept for the report of a finding. */
const KEPT_LINES = 60

export interface FuzzOptions {
  /** Path of the built program. */
  readonly program: string
  /** Folder of one's own: `corpus/` grows from run to run, findings lie beside it. */
  readonly folder: string
  /** Ends after so many seconds, or so many inputs. */
  readonly until: { readonly seconds: number } | { readonly runs: number }
  /** Fixed for a run that can be repeated. */
  readonly seed?: number
}

export interface FuzzResult {
  readonly executions: number
  readonly seconds: number
  /** Edges of the program that were reached. */
  readonly coverage: number
  readonly finding?: {
    /** Path of the input, unless libFuzzer could write none. */
    readonly input?: string
    /** What it and the sanitizers said. */
    readonly report: string
  }
}

/** Resolves with a finding when the program ends with one; rejects only when it cannot be started. */
export async function runFuzzer(fuzzer: Fuzzer, options: FuzzOptions): Promise<FuzzResult> {
  const corpus = join(options.folder, 'corpus', fuzzer.name)
  await mkdir(corpus, { recursive: true })
  const { until } = options
  const limit = 'seconds' in until ? `-max_total_time=${until.seconds}` : `-runs=${until.runs}`
  const child = spawn(
    options.program,
    [
      limit,
      `-max_len=${fuzzer.maxBytes}`,
      `-timeout=${INPUT_SECONDS}`,
      `-rss_limit_mb=${MEMORY_MIB}`,
      '-print_final_stats=1',
      `-artifact_prefix=${join(options.folder, `${fuzzer.name}-`)}`,
      ...(options.seed === undefined ? [] : [`-seed=${options.seed}`]),
      corpus,
      join(SEEDS, fuzzer.name),
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  const started = performance.now()
  const lines: string[] = []
  let executions = 0
  let coverage = 0
  let input: string | undefined
  const take = (line: string): void => {
    lines.push(line)
    if (lines.length > KEPT_LINES) lines.shift()
    coverage = Number(/\bcov: (\d+)/.exec(line)?.[1] ?? coverage)
    executions = Number(/^stat::number_of_executed_units: (\d+)/.exec(line)?.[1] ?? executions)
    input = /Test unit written to (.+)$/.exec(line)?.[1] ?? input
  }
  const status = await new Promise<number | string>((resolve, reject) => {
    let rest = ''
    child.stderr.setEncoding('latin1').on('data', (text: string) => {
      const parts = (rest + text).split('\n')
      rest = parts.pop() ?? ''
      for (const line of parts) take(line)
    })
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'no status'))
  })
  const result = { executions, coverage, seconds: (performance.now() - started) / 1000 }
  if (status === 0) return result
  const report = lines.join('\n')
  return { ...result, finding: input === undefined ? { report } : { input, report } }
}
