/**
 * Fails when docs/promises.md names a test title that does not exist, or a command that package.json does not have.
 * A line maps one promise to what shows it: `| promise | test: title |` or `| promise | command: npm run x |`.
 */
import { globSync, readFileSync } from 'node:fs'

const titles = new Set<string>()
/** Titles built in loops: their fixed parts, in order. */
const templates: RegExp[] = []
for (const file of globSync('test/**/*.test.ts')) {
  const text = readFileSync(file, 'utf8')
  // Titles of table tests stand in the table.
  for (const [, , title = ''] of text.matchAll(/\btitle: (['"])((?:\\.|(?!\1).)*)\1/g)) titles.add(title)
  for (const match of text.matchAll(
    /\btest(?:\.serial|\.skipIf\([^)]*\)|\.runIf\([^)]*\))?\(\s*(['"`])((?:\\.|(?!\1).)*)\1/gs,
  )) {
    const [, quote, title = ''] = match
    if (quote !== '`' || !title.includes('${')) titles.add(title.replaceAll(`\\${quote}`, quote ?? ''))
    else
      templates.push(
        new RegExp(
          `^${title
            .split(/\$\{[^}]*\}/)
            .map(literally)
            .join('.+')}$`,
        ),
      )
  }
}

function literally(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
}

const scripts = (JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }).scripts
const problems: string[] = []
let promises = 0
readFileSync('docs/promises.md', 'utf8')
  .split('\n')
  .forEach((line, index) => {
    if (!line.startsWith('| ') || line.startsWith('| promise') || line.startsWith('| ---')) return
    const cells = line.split(' | ')
    const shown = (cells.at(-1) ?? '').replace(/\s*\|\s*$/, '').trim()
    promises++
    for (const proof of shown.split(/;\s(?=(?:test|command): )/)) {
      const [kind, name = ''] = proof.split(/:\s(.*)/s)
      if (kind === 'test' && (titles.has(name) || templates.some((template) => template.test(name)))) continue
      if (kind === 'command' && scripts[name.replace(/^npm (run )?/, '').split(' ')[0] ?? ''] !== undefined) continue
      if (kind === 'check' && scripts.check !== undefined) continue
      problems.push(`docs/promises.md:${index + 1}: nothing is called ${JSON.stringify(proof)}`)
    }
  })
if (promises === 0) problems.push('docs/promises.md holds no promise')
for (const problem of problems) console.error(problem)
process.exitCode = problems.length === 0 ? 0 : 1
