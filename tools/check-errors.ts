/**
 * Fails when an error code in the source is not explained in docs/errors.md, or the other way round: a code without
 * cause and remedy is a refusal that nobody can act on.
 */
import { globSync, readFileSync } from 'node:fs'

const documented = new Set(
  [...readFileSync('docs/errors.md', 'utf8').matchAll(/^\| `?(ERR_[A-Z0-9_]+)`? \|/gm)].map(([, code = '']) => code),
)
const SOURCES = ['attestation', 'cli', 'guest', 'host-shim', 'image', 'native', 'policies', 'protocol', 'tools', 'vmm']
const used = new Map<string, string>()
for (const folder of SOURCES) {
  for (const file of globSync(`${folder}/**/*.{ts,mjs,cc,c,h}`)) {
    if (file.startsWith('native/build/') || file === 'tools/check-errors.ts') continue
    for (const [code] of readFileSync(file, 'utf8').matchAll(/\bERR_[A-Z0-9_]*[A-Z0-9]\b/g)) {
      // Node's own codes are quoted where they are translated.
      if (!/^ERR_(TLS|SSL|INVALID_ARG|HTTP2|STREAM|OSSL)_[A-Z_]*$/.test(code) || documented.has(code))
        used.set(code, file)
    }
  }
}

const problems = [
  ...[...used]
    .filter(([code]) => !documented.has(code))
    .map(([code, file]) => `${code} (${file}) is not in docs/errors.md`),
  ...[...documented]
    .filter((code) => !used.has(code))
    .map((code) => `docs/errors.md explains ${code}, which nothing throws`),
]
for (const problem of problems) console.error(problem)
process.exitCode = problems.length === 0 ? 0 : 1
