/** The command against the recorded verdicts of `_expected/`. */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { parseMoment } from '#cli/moment'
import { CaissonError } from '#protocol/errors'
import { folderOf, runEvidenceVerify, verdictFor } from '../../fixtures/evidence-cli.ts'

const VECTORS = 'test/vectors'
const read = (path: string): Buffer => readFileSync(join(VECTORS, path))
const expectedOf = (topic: string, file: string) => JSON.parse(read(`${topic}/_expected/${file}`).toString('utf8'))

const folders: string[] = []
function folder(files: Readonly<Record<string, Uint8Array | string>>): string {
  const made = folderOf(files)
  folders.push(made)
  return made
}
test.after.always(() => {
  for (const made of folders) rmSync(made, { recursive: true })
})

const policyOf = (document: object): string =>
  join(
    folder({ 'policy.yaml': JSON.stringify({ apiVersion: 'caisson/v1', kind: 'AppraisalPolicy', ...document }) }),
    'policy.yaml',
  )

interface SnpCase {
  readonly report: string
  readonly vek: string
  readonly chain: string
  readonly verdict: string
  readonly fields: Readonly<Record<string, string | number>>
  readonly vek_valid: readonly [string, string]
}
const snp = expectedOf('snp', 'reports.json') as {
  reports: SnpCase[]
  crl: { file: string; issuer: string; thisUpdate: string; nextUpdate: string }[]
  json_evidence: { file: string; verdict: string }[]
}
const [crl] = snp.crl

for (const { report, vek, chain, verdict, fields, vek_valid } of snp.reports) {
  const path = join(VECTORS, report)
  const listed = chain.includes(crl?.issuer.replace('ARK-', '').toLowerCase() ?? '?')
  const collateral = () =>
    folder({ vek: read(vek), chain: read(chain), ...(listed && crl !== undefined ? { crl: read(crl.file) } : {}) })
  const [from, until] = vek_valid.map((text) => new Date(text)) as [Date, Date]
  // Within the certificate's time, and the list's where there is one.
  const at = new Date(Math.max(from.getTime(), Date.parse(crl?.thisUpdate ?? '')) + 86_400_000).toISOString()

  test(`${report} is accepted while its certificate is valid, and says what it claims`, async (t) => {
    t.is(verdict, 'accept')
    const debugged = (BigInt(fields.policy ?? 0) & (1n << 19n)) !== 0n
    const words = [path, '--tee', 'snp', '--collateral', collateral(), '--at', at]
    const strict = await verdictFor(...words)
    t.deepEqual(
      strict.reasons.map(({ code }) => code),
      [...(listed ? [] : ['unchecked_crl']), ...(debugged ? ['debug'] : [])],
    )
    const permitted = await verdictFor(...words, '--policy', policyOf({ debug: true }))
    t.is(permitted.verdict, listed ? 'affirming' : 'warning')
    t.is(permitted.exitCode, listed ? 0 : 1)
    const { claims } = permitted
    for (const name of ['measurement', 'report_data', 'host_data', 'guest_svn', 'vmpl'])
      t.is(claims[name], fields[name], name)
    t.is(claims.report_version, fields.version)
    t.is((claims.tcb as { value: string }).value, String(fields.reported_tcb))
    t.deepEqual(claims.chip_id ?? '0'.repeat(128), fields.chip_id)
    t.is(claims.firmware_version, fields.cur_ver)
  })

  test(`${report} is refused when its certificate has expired`, async (t) => {
    const late = new Date(until.getTime() + 1000).toISOString()
    const {
      verdict: refused,
      reasons,
      exitCode,
    } = await verdictFor(path, '--tee', 'snp', '--collateral', collateral(), '--at', late)
    t.is(refused, 'contraindicated')
    t.is(exitCode, 1)
    t.true(reasons.some(({ code }) => code === 'certificate_expired'))
  })

  test(`${report} is bound to its report data, padded with zeros, and to no other nonce`, async (t) => {
    const words = [path, '--tee', 'snp', '--collateral', collateral(), '--at', at]
    const nonce = String(fields.report_data).replace(/(00)+$/, '') || '00'
    const codes = async (text: string) => (await verdictFor(...words, '--nonce', text)).reasons.map(({ code }) => code)
    t.false((await codes(nonce)).includes('nonce_mismatch'))
    t.true((await codes(`${nonce}01`.slice(-128))).includes('nonce_mismatch'))
  })

  test(`${report} without collateral is not affirmed, and says what stayed unchecked`, async (t) => {
    const { verdict: bare, reasons } = await verdictFor(path, '--tee', 'snp', '--at', at)
    t.not(bare, 'affirming')
    t.true(reasons.some(({ code }) => code === 'unchecked_chain'))
  })
}

test('evidence JSON of CoCo is accepted as recorded, whatever encodes it', async (t) => {
  for (const { file, verdict } of snp.json_evidence) {
    t.is(verdict, 'accept')
    const text = read(file)
    const written = folder({ json: text, base64: text.toString('base64') })
    for (const name of ['json', 'base64']) {
      const { reasons, format } = await verdictFor(join(written, name), '--tee', 'snp', '--at', '2025-08-01')
      t.deepEqual([format.encoding, format.shape], [name, 'coco-snp'])
      t.deepEqual(
        reasons.map(({ code }) => code),
        ['unchecked_crl'],
      )
    }
  }
})

const tdx = expectedOf('tdx', 'quotes.json') as {
  quotes: (Readonly<Record<string, string | number>> & { file: string; trailing: number })[]
  'tcb_status_checked_with_npm_@phala/dcap-qvl@0.3.9': {
    quote: string
    collateral: string
    valid_window: string
    verdict: string
  }[]
}
for (const { quote, collateral, valid_window, verdict } of tdx['tcb_status_checked_with_npm_@phala/dcap-qvl@0.3.9']) {
  const path = join(VECTORS, 'tdx', quote)
  const [from = '', until = ''] = valid_window.split('..')
  const words = (at: string) => [
    path,
    '--tee',
    'tdx',
    '--collateral',
    folder({ c: read(`tdx/${collateral}`) }),
    '--at',
    at,
  ]
  const sgx = quote.includes('sgx')

  test(`${quote} has the recorded status while its collateral is valid, and only then`, async (t) => {
    if (sgx) {
      const { exitCode, error } = await runEvidenceVerify(...words(from))
      t.is(exitCode, 2)
      t.true(error instanceof CaissonError && error.code === 'ERR_QUOTE_UNSUPPORTED')
      return
    }
    // The peer does not judge when revocation lists were due; here they end the window some minutes earlier.
    const middle = new Date((Date.parse(from) + Date.parse(until)) / 2).toISOString()
    for (const at of [from, middle]) {
      const { verdict: found, claims, exitCode } = await verdictFor(...words(at))
      t.deepEqual([found, exitCode, `accept ${String(claims.tcb_status)}, advisories []`], ['affirming', 0, verdict])
    }
    for (const [at, step] of [
      [from, -1000],
      [until, 1000],
    ] as const) {
      const outside = await verdictFor(...words(new Date(Date.parse(at) + step).toISOString()))
      t.is(outside.verdict, 'contraindicated', at)
    }
  })
}

for (const entry of tdx.quotes) {
  const { file, trailing } = entry
  if (entry.tee !== '0x81') continue
  test(`${file} is genuine without collateral, is not affirmed, and says what it claims`, async (t) => {
    const whole = read(file)
    const zeros = whole.subarray(whole.length - trailing).every((byte) => byte === 0)
    const path = join(folder({ quote: zeros ? whole : whole.subarray(0, whole.length - trailing) }), 'quote')
    const [from = ''] = String(entry.pck_valid).split('..')
    const at = new Date(Date.parse(from) + 86_400_000 * 30).toISOString()
    const { verdict, reasons, claims } = await verdictFor(
      path,
      '--tee',
      'tdx',
      '--at',
      at,
      '--policy',
      policyOf({ debug: true }),
    )
    t.is(verdict, 'warning')
    t.true(reasons.some(({ code }) => code === 'unchecked_tcb'))
    t.true(reasons.every(({ code }) => code.startsWith('unchecked_') || code === 'sept_ve'))
    for (const name of ['mrtd', 'rtmr0', 'rtmr1', 'rtmr2', 'fmspc', 'tee_tcb_svn'])
      t.is(claims[name], entry[name], name)
    if (zeros) return
    const { exitCode } = await runEvidenceVerify(join(VECTORS, file), '--tee', 'tdx')
    t.is(exitCode, 2, 'bytes behind a quote that are not zeros')
  })
}

interface TpmCase {
  readonly file: string
  readonly nonce_utf8?: string
  readonly pcr0?: string
  readonly verdict: string
}
const tpm = expectedOf('tpm', 'quotes.json') as { cases: TpmCase[] }
for (const { file, nonce_utf8 = '', pcr0, verdict } of tpm.cases) {
  if (!file.includes('/evidence-')) continue
  test(`${file} is accepted as recorded, bound to its nonce and to no other`, async (t) => {
    t.regex(verdict, /accept/)
    const nonce = Buffer.from(nonce_utf8).toString('hex')
    const at = file.includes('snp') ? '2025-08-01' : '2025-06-01'
    const words = [join(VECTORS, file), '--tee', 'tpm', '--at', at]
    const good = await verdictFor(...words, '--nonce', nonce)
    t.true(
      good.reasons.every(({ code }) => code.startsWith('unchecked_') || code === 'sept_ve'),
      JSON.stringify(good.reasons),
    )
    t.is((good.claims.pcrs as { sha256: Record<string, string> }).sha256['0'], pcr0)
    const other = await verdictFor(...words, '--nonce', `${nonce}00ff`)
    t.true(other.reasons.some(({ code }) => code === 'nonce_mismatch'))
    t.is(other.verdict, 'contraindicated')
  })
}

test('the same report in any encoding gives the same verdict', async (t) => {
  const [{ report, vek } = { report: '', vek: '' }] = snp.reports
  const bytes = read(report)
  const files = {
    raw: bytes,
    hex: bytes.toString('hex'),
    base64: bytes.toString('base64'),
    pem: `-----BEGIN SNP REPORT-----\n${bytes.toString('base64').replace(/(.{64})/g, '$1\n')}\n-----END SNP REPORT-----\n`,
  }
  const written = folder(files)
  const collateral = folder({ vek: read(vek) })
  const verdicts = await Promise.all(
    Object.keys(files).map((name) =>
      verdictFor(join(written, name), '--tee', 'snp', '--collateral', collateral, '--at', '2025-07-01'),
    ),
  )
  t.deepEqual(
    verdicts.map(({ format }) => format.encoding),
    Object.keys(files),
  )
  const [first, ...others] = verdicts.map(({ format: _format, ...verdict }) => verdict)
  for (const other of others) t.deepEqual(other, first)
})

test('JSON has exactly the members that are documented, and reasons have all of theirs', async (t) => {
  const [{ report } = { report: '' }] = snp.reports
  const printed = await verdictFor(join(VECTORS, report), '--tee', 'snp')
  t.deepEqual(Object.keys(printed), [
    'verdict',
    'tee',
    'claims',
    'trustworthiness',
    'reasons',
    'format',
    'at',
    'ignored_collateral',
    'exitCode',
  ])
  for (const reason of printed.reasons)
    t.deepEqual(Object.keys(reason), ['code', 'message', 'expected', 'found', 'remedy'])
})

test('people are told verdict, reasons with remedies, claims, and what was not used', async (t) => {
  const [{ report } = { report: '' }] = snp.reports
  const collateral = folder({ 'notes.txt': 'nothing' })
  const { stdout, exitCode } = await runEvidenceVerify(
    join(VECTORS, report),
    '--tee',
    'snp',
    '--collateral',
    collateral,
  )
  t.is(exitCode, 1)
  t.regex(stdout, /^contraindicated: snp evidence, read as snp-report \(raw\)/)
  t.regex(stdout, /- unchecked_chain: .*\n {4}expected: .*\n {4}found: .*\n {4}remedy: /)
  t.regex(stdout, /\n {2}measurement: [0-9a-f]{96}\n/)
  t.regex(stdout, /not used as collateral:\n {2}notes.txt: /)
})

const malformed: readonly [title: string, words: () => string[], code: string][] = [
  ['an empty file', () => [join(folder({ x: '' }), 'x'), '--tee', 'snp'], 'ERR_EVIDENCE'],
  [
    'a report that was cut',
    () => [join(folder({ x: read(snp.reports[0]?.report ?? '').subarray(0, 1183) }), 'x'), '--tee', 'snp'],
    'ERR_SNP_REPORT',
  ],
  ['a quote of another TEE', () => [join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote'), '--tee', 'snp'], 'ERR_SNP_REPORT'],
  [
    'evidence of Azure’s SNP as TDX',
    () => [join(VECTORS, 'tpm/trustee/az-snp-vtpm/evidence-v1.json'), '--tee', 'tdx'],
    'ERR_EVIDENCE',
  ],
  ['a file that is not there', () => ['/nowhere/at/all', '--tee', 'snp'], 'ERR_FILE_UNREADABLE'],
  ['an unknown TEE', () => [join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote'), '--tee', 'sgx'], 'ERR_USAGE'],
  ['no TEE', () => [join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote')], 'ERR_USAGE'],
  [
    'a nonce that is not hexadecimal',
    () => [join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote'), '--tee', 'tdx', '--nonce', 'xy'],
    'ERR_HEX',
  ],
  [
    'a nonce of 65 bytes',
    () => [join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote'), '--tee', 'tdx', '--nonce', '00'.repeat(65)],
    'ERR_USAGE',
  ],
  [
    'a time that does not exist',
    () => [join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote'), '--tee', 'tdx', '--at', '2025-02-30'],
    'ERR_USAGE',
  ],
  [
    'a policy that is none',
    () => [
      join(VECTORS, 'tdx/dcap-qvl/sample/tdx_quote'),
      '--tee',
      'tdx',
      '--policy',
      join(folder({ p: 'x: 1' }), 'p'),
    ],
    'ERR_POLICY_MALFORMED',
  ],
]
for (const [title, words, code] of malformed) {
  test(`evidence verify ends with 2 for ${title}`, async (t) => {
    const { exitCode, stdout, error } = await runEvidenceVerify(...words())
    t.is(exitCode, 2)
    t.is(stdout, '')
    t.is(error instanceof CaissonError ? error.code : String(error), code)
  })
}

test('what others wrote cannot make lines of its own, or move the cursor', async (t) => {
  const [{ report } = { report: '' }] = snp.reports
  const collateral = folder({ '\u001b[2Jx\naffirming: snp evidence\u202e': 'nothing' })
  const { stdout } = await runEvidenceVerify(join(VECTORS, report), '--tee', 'snp', '--collateral', collateral)
  t.false(stdout.includes('\u001b') || stdout.includes('\u202e') || /^affirming/m.test(stdout))
  t.true(stdout.includes('  \\u{1b}[2Jx\\u{a}affirming: snp evidence\\u{202e}: neither PEM'))
})

test('times are read as days, as times with and without a zone, and as seconds', (t) => {
  const noon = new Date('2025-07-01T12:00:00Z')
  for (const text of ['2025-07-01T12:00:00Z', '2025-07-01T14:00+02:00', '2025-07-01 12:00', '1751371200']) {
    t.deepEqual(parseMoment(text), noon, text)
  }
  t.deepEqual(parseMoment('2025-07-01'), new Date('2025-07-01T00:00:00Z'))
  for (const text of ['', 'now', '2025-13-01', '2025-02-29', '2025-07-01T25:00Z', '-1', '1e9']) {
    t.throws(() => parseMoment(text), { code: 'ERR_USAGE' }, text)
  }
})
