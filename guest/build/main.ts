/**
 * node guest/build/main.ts [--force] [--agent FILE] [--relock]
 *
 * Builds the guest and prints its directory on standard output; progress and warnings go to standard error. `--relock`
 * writes guest/lock.json anew instead.
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CaissonError } from '#protocol/errors'
import { buildGuest, LOCK_FILE } from './build.ts'
import type { BuildProgress } from './progress.ts'
import { relock } from './relock.ts'

const { values } = parseArgs({
  options: { force: { type: 'boolean' }, agent: { type: 'string' }, relock: { type: 'boolean' } },
})

try {
  if (values.relock === true) {
    for (const change of await relock(fileURLToPath(new URL('../..', import.meta.url)), LOCK_FILE)) console.log(change)
  } else {
    const options = { force: values.force ?? false, onProgress: printer() }
    const guest = await buildGuest(values.agent === undefined ? options : { ...options, agent: values.agent })
    console.log(guest.directory)
  }
} catch (error) {
  if (!(error instanceof CaissonError)) throw error
  console.error(`${error.code}: ${error.message}`)
  if (error.hint !== undefined) console.error(error.hint)
  process.exitCode = 3
}

/** A line per message; percentages only every tenth, so that a log stays readable. */
function printer(): (progress: BuildProgress) => void {
  let last = ''
  return ({ step, text, percent, warning }) => {
    const tens = percent === undefined ? '' : ` ${Math.floor(percent / 10) * 10} %`
    const line = `${warning === true ? 'WARNING ' : ''}${step}: ${text}${tens}`
    if (line !== last) console.error(line)
    last = line
  }
}
