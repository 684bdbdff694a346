/**
 * Fails when a function that parses has no property-based test: an exported `parse…` must be named in a test file that
 * uses fast-check, or the property in test/unit/parser-property.ts. What a parser reads comes from somebody else, and examples cover only what their author thought of.
 */
import { globSync, readFileSync } from 'node:fs'

/** Parsers without a property of their own, and why that is enough. */
const EXCEPTIONS: Readonly<Record<string, string>> = {}

const SOURCES = ['attestation', 'cli', 'guest', 'host-shim', 'image', 'native', 'policies', 'protocol', 'tools', 'vmm']
const EXPORTED = /^export (?:async )?(?:function|const) (parse[A-Z]\w*)/gm

const tested = new Set<string>()
for (const file of globSync('test/**/*.test.ts')) {
  const text = readFileSync(file, 'utf8')
  if (!/from '(?:fast-check|[./]+parser-property\.ts)'/.test(text)) continue
  for (const [name] of text.matchAll(/\bparse[A-Z]\w*/g)) tested.add(name)
}

const problems: string[] = []
const found = new Set<string>()
for (const folder of SOURCES) {
  for (const file of globSync(`${folder}/**/*.ts`)) {
    if (file.includes('/gen/') || file.includes('node_modules')) continue
    for (const [, name = ''] of readFileSync(file, 'utf8').matchAll(EXPORTED)) {
      found.add(name)
      if (!tested.has(name) && EXCEPTIONS[name] === undefined) {
        problems.push(`${file}: ${name} has no property-based test`)
      }
      if (tested.has(name) && EXCEPTIONS[name] !== undefined) problems.push(`${name} is tested: remove its exception`)
    }
  }
}
for (const name of Object.keys(EXCEPTIONS)) if (!found.has(name)) problems.push(`there is no parser ${name} to except`)
if (found.size === 0) problems.push('no parser was found')
for (const problem of problems) console.error(problem)
process.exitCode = problems.length === 0 ? 0 : 1
