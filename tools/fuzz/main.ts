/**
 * node tools/fuzz/main.ts [--seconds N] [--only NAME]...
 *
 * Runs every fuzzer in turn, ten minutes each unless told otherwise, and ends with 1 when one found something. What it
 * learns and what it finds stays under $XDG_STATE_HOME/caisson/fuzz, so that the next run goes on from there.
 */
import { homedir } from 'node:os'
import { isAbsolute, join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { buildNative } from '../../native/build.mjs'
import { FUZZERS } from './fuzzers.ts'
import { type FuzzResult, runFuzzer } from './run.ts'

const USAGE = `usage: npm run test:fuzz -- [--seconds N] [--only NAME]...

names: ${FUZZERS.map(({ name }) => name).join(', ')}`

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    only: { type: 'string', multiple: true, default: FUZZERS.map(({ name }) => name) },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
const wanted = FUZZERS.filter(({ name }) => values.only.includes(name))
const seconds = Number(values.seconds)
if (values.help) console.log(USAGE)
else if (wanted.length < new Set(values.only).size || !Number.isInteger(seconds) || seconds < 1) {
  console.error(USAGE)
  process.exitCode = 2
} else await main()

async function main(): Promise<void> {
  const home = process.env.XDG_STATE_HOME ?? ''
  const folder = join(isAbsolute(home) ? home : join(homedir(), '.local/state'), 'caisson/fuzz')
  const programs = await buildNative({ only: wanted.map(({ name }) => `fuzz-${name}`) })
  console.log(`${'fuzzer'.padEnd(20)} ${'executions'.padStart(12)} ${'per second'.padStart(11)} ${'edges'.padStart(6)}`)
  let findings = 0
  for (const fuzzer of wanted) {
    const program = programs[`fuzz-${fuzzer.name}`] ?? ''
    const result = await runFuzzer(fuzzer, { program, folder, until: { seconds } })
    console.log(row(fuzzer.name, result))
    if (result.finding === undefined) continue
    findings++
    console.log(result.finding.report)
    if (result.finding.input !== undefined) {
      console.log(`\nreproduce it with: ${relative(process.cwd(), program)} ${result.finding.input}\n`)
    }
  }
  console.log(findings === 0 ? 'nothing found' : `${findings} of ${wanted.length} fuzzers found something`)
  process.exitCode = findings === 0 ? 0 : 1
}

function row(name: string, { executions, seconds: took, coverage, finding }: FuzzResult): string {
  const rate = Math.round(executions / took)
  const numbers = [String(executions).padStart(12), String(rate).padStart(11), String(coverage).padStart(6)]
  return `${name.padEnd(20)} ${numbers.join(' ')}${finding === undefined ? '' : '  FOUND SOMETHING'}`
}
