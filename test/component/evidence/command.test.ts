/** The command as its own process: what reaches stdout, stderr and the shell. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'

const ROOT = join(import.meta.dirname, '../../..')
const VECTORS = join(ROOT, 'test/vectors')

function caisson(...words: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, 'cli/caisson.mjs'), ...words], {
    encoding: 'utf8',
    env: { ...process.env, NODE_EXTRA_CA_CERTS: undefined },
  })
  return { status, stdout, stderr }
}

const quote = join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote')
const collateral = join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote_collateral.json')
const verify = ['evidence', 'verify', quote, '--tee', 'tdx', '--json', '--at', '2025-07-01T00:00:00Z']

test('affirmed evidence ends with 0, and stdout holds one JSON document', (t) => {
  const { status, stdout, stderr } = caisson(...verify, '--collateral', collateral)
  t.is(status, 0)
  t.is(stderr, '')
  t.like(JSON.parse(stdout), { verdict: 'affirming', tee: 'tdx', reasons: [] })
})

test('evidence that is not affirmed ends with 1, with its reasons on stdout', (t) => {
  const { status, stdout, stderr } = caisson(...verify)
  t.is(status, 1)
  t.is(stderr, '')
  const { verdict, reasons } = JSON.parse(stdout) as { verdict: string; reasons: { code: string }[] }
  t.is(verdict, 'warning')
  t.true(reasons.every(({ code }) => code.startsWith('unchecked_')))
})

test('what is no evidence ends with 2, nothing on stdout, and an error with its code on stderr', (t) => {
  const { status, stdout, stderr } = caisson(...verify.with(2, join(ROOT, 'README.md')))
  t.is(status, 2)
  t.is(stdout, '')
  const { error } = JSON.parse(stderr) as { error: { code: string; message: string } }
  t.is(error.code, 'ERR_EVIDENCE')
})

/** Names every module on stderr as it is loaded. */
const WATCH = `import { registerHooks } from 'node:module'
registerHooks({ load(url, context, next) { console.error('loaded ' + url); return next(url, context) } })`

test('judging a quote loads its own module, and neither policies nor other TEEs nor the protocol of guests', (t) => {
  const words = ['--import', `data:text/javascript,${encodeURIComponent(WATCH)}`, join(ROOT, 'cli/main.ts'), ...verify]
  const { stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' })
  const loaded = stderr.split('\n').filter((line) => line.startsWith('loaded file:'))
  const has = (part: string): boolean => loaded.some((line) => line.includes(part))
  t.true(has('/attestation/tdx/appraise.ts'))
  for (const part of ['/snp/appraise.ts', '/tpm/appraise', '/azure/', '/node_modules/', '/parse-policy.ts', '/gen/']) {
    t.false(has(part), part)
  }
})
