/** `caisson`: finds the sub-command, reads its words, runs it, and turns what it throws into an exit code. */
import { enableCompileCache } from 'node:module'
import { join } from 'node:path'
import { UsageError } from '#protocol/errors'
import { cacheDirectory } from '#tools/cache/location'
import { type CommandSpec, helpText, parseInvocation } from './command.ts'
import { COMMANDS } from './commands.ts'
import { exitCodeOf } from './exit-code.ts'
import { Output } from './output.ts'

async function main(words: readonly string[]): Promise<number> {
  const beforeSeparator = words.includes('--') ? words.slice(0, words.indexOf('--')) : words
  const out = new Output(beforeSeparator.includes('--json'))
  try {
    const found = findCommand(words)
    if (found === undefined) return overview(words, out)
    const spec = await COMMANDS[found.path]?.load()
    if (spec === undefined) return overview(words, out)
    if (beforeSeparator.includes('--help') || beforeSeparator.includes('-h')) {
      out.write(helpText(spec))
      return 0
    }
    return await runCommand(spec, words.slice(found.length), out)
  } catch (error) {
    out.error(error)
    return exitCodeOf(error)
  }
}

function runCommand(spec: CommandSpec, words: readonly string[], out: Output): Promise<number> {
  return spec.run(parseInvocation(spec, words, out))
}

/** The longest command path that the words start with. */
function findCommand(words: readonly string[]): { path: string; length: number } | undefined {
  for (let length = Math.min(3, words.length); length > 0; length--) {
    const path = words.slice(0, length).join(' ')
    if (COMMANDS[path] !== undefined) return { path, length }
  }
  return undefined
}

function overview(words: readonly string[], out: Output): number {
  const asked = words.filter((word) => !word.startsWith('-'))
  const matching = Object.entries(COMMANDS).filter(([path]) => asked.length === 0 || path.startsWith(`${asked[0]} `))
  if (asked.length > 0 && matching.length === 0) {
    throw new UsageError('ERR_USAGE', `caisson has no command ${JSON.stringify(asked.join(' '))}`, {
      hint: '`caisson --help` lists the commands.',
    })
  }
  const lines = matching.map(([path, { summary }]) => `  ${path.padEnd(34)} ${summary}`)
  out.write(
    `usage: caisson COMMAND [options]\n\n${lines.join('\n')}\n\nEach command has --help with examples, and --json.\n`,
  )
  return words.length === 0 || (asked.length > 0 && !words.includes('--help') && !words.includes('-h')) ? 2 : 0
}

// Commands are loaded after this, and compiled once. Without a place to write to, they are compiled every time.
enableCompileCache(join(cacheDirectory(), 'compiled'))
process.exitCode = await main(process.argv.slice(2))
