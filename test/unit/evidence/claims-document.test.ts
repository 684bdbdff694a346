import { globSync, readFileSync } from 'node:fs'
import test from 'ava'
import { CLAIM_TYPES } from '#attestation/appraisal/claim-types'

const document = readFileSync('docs/claims.md', 'utf8')
const [claimsPart = '', reasonsPart = ''] = document.split('\n## Reasons')

test('docs/claims.md lists every claim that policies may name, with its type, and no other', (t) => {
  const listed = [...claimsPart.matchAll(/^\| `([a-z0-9_]+)` \| (\w+) \|/gm)].map(([, name, type]) => `${name} ${type}`)
  const known = Object.entries(CLAIM_TYPES).map(([name, { type }]) => `${name} ${type}`)
  t.deepEqual(listed.toSorted(), known.toSorted())
})

const SOURCES = 'attestation/{snp,tdx,tpm,azure,appraisal,evidence}/**/*.ts'
/** Problems of certificate paths, which become reasons with names of their own. */
const PATH_CODES = new Set(
  [...readFileSync('attestation/x509/path.ts', 'utf8').matchAll(/^ {2}\| '([a-z_]+)'/gm)].map(([, code = '']) => code),
)
const FINDING_CODE =
  /\bcode: '([a-z][a-z0-9_]*)'(?! in)|\b(?:refuse|add)\(\s*(?:'(?:warning|contraindicated)',\s*)?'([a-z][a-z0-9_]*)'/g
/** Tables from path problems to reasons. */
const TABLE_CODE = /^\s+[a-z_]+: '((?:chain|crl|certificate)_[a-z_]+)',$/gm

test('docs/claims.md explains every reason that is given, and no other', (t) => {
  const used = new Set<string>()
  for (const file of globSync(SOURCES)) {
    const text = readFileSync(file, 'utf8')
    for (const [, direct, called] of text.matchAll(FINDING_CODE)) used.add(direct ?? called ?? '')
    for (const [, code = ''] of text.matchAll(TABLE_CODE)) used.add(code)
    for (const [, family = ''] of text.matchAll(/\bcode: `([a-z_]+)_\$\{/g)) used.add(`${family}_*`)
    for (const [, first = '', second = ''] of text.matchAll(/\bcode: \w+ .*\? '([a-z_]+)' : '([a-z_]+)'/g))
      used.add(first).add(second)
    for (const [, first = '', second = ''] of text.matchAll(/\bcode: .* in \w+ \? '([a-z_]+)' : '([a-z_]+)'/g))
      used.add(first).add(second)
    for (const [, code = ''] of text.matchAll(/\bconst code = '([a-z_]+)'/g)) used.add(code)
  }
  const codes = [...used].filter((code) => !PATH_CODES.has(code) || code.startsWith('crl_'))
  t.true(codes.length > 60)
  const listed = new Set([...reasonsPart.matchAll(/^\| `([a-z0-9_*]+)` \|/gm)].map(([, code = '']) => code))
  t.deepEqual(
    codes.filter((code) => !listed.has(code)),
    [],
    'not explained',
  )
  const text = globSync(SOURCES)
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n')
  t.deepEqual(
    [...listed].filter((code) => !text.includes(`'${code}'`) && !used.has(code)),
    [],
    'explained, but never given',
  )
})
