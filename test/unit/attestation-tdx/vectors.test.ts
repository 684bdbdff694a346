/** Every recorded quote, collateral and event log against the verdicts of `_expected/`. */
import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import { type CollateralFile, NO_COLLATERAL, readCollateral } from '#attestation/evidence/collateral'
import { verdictOf } from '#attestation/evidence/verdict'
import { appraiseTdx, judgeQuote } from '#attestation/tdx/appraise'
import { eventLogFindings, replayRtmrs } from '#attestation/tdx/evaluate/event-log'
import { parseTdxEvidence, tdxEvidenceOf } from '#attestation/tdx/parse/evidence'
import { parseQuote, type Quote } from '#attestation/tdx/parse/quote'
import { parseEventLog } from '#attestation/tpm/parse/event-log'
import { parseCertificate } from '#attestation/x509/certificate'
import { toHex } from '#protocol/encoding'

const VECTORS = new URL('../../vectors/', import.meta.url)
const bytesOf = (path: string): Uint8Array => new Uint8Array(readFileSync(new URL(path, VECTORS)))
const fileOf = (path: string): CollateralFile => ({ name: path, bytes: bytesOf(path) })

interface ExpectedQuote {
  readonly file: string
  readonly version: number
  readonly len: number
  readonly trailing: number
  readonly qe_cert_type: number
  readonly fmspc: string
  readonly pck_valid: string
  readonly pck_cn: readonly string[]
  readonly signature_verdict: string
  readonly [name: string]: unknown
}

interface ExpectedTcb {
  readonly quote: string
  readonly collateral: string
  readonly valid_window: string
  readonly verdict: string
}

interface Expected {
  readonly quotes: readonly ExpectedQuote[]
  readonly 'tcb_status_checked_with_npm_@phala/dcap-qvl@0.3.9': readonly ExpectedTcb[]
  readonly upstream_tdx_collateral: readonly { readonly time: string }[]
  readonly 'go-tdx-guest_mutations_on_tdx_prod_quote_SPR_E4': readonly {
    readonly offset: string
    readonly value: number | string
  }[]
  readonly event_log_replay_sha384: Readonly<Record<string, Readonly<Record<string, string | number>>>>
  readonly pairs: readonly { readonly ccel: string; readonly quote: string }[]
}

const expected: Expected = JSON.parse(readFileSync(new URL('tdx/_expected/quotes.json', VECTORS), 'utf8'))

/** The quote alone: one of the files has a sentence behind it. */
function quoteOf(entry: ExpectedQuote): Uint8Array {
  const bytes = bytesOf(entry.file)
  const end = bytes.length - entry.trailing
  return bytes.subarray(end).every((byte) => byte === 0) ? bytes : bytes.slice(0, end)
}

/** A moment at which the certificate of the platform is valid. */
function validTime(entry: ExpectedQuote): Date {
  const [start = ''] = entry.pck_valid.split('..')
  return new Date(new Date(start).getTime() + 30 * 24 * 3600 * 1000)
}

function fieldsOf(quote: Quote): Record<string, string> {
  if (quote.body.tee !== 'tdx') return {}
  const { report } = quote.body
  const [rtmr0, rtmr1, rtmr2, rtmr3] = report.rtmrs.map(toHex)
  const little = (value: bigint): string =>
    Buffer.from(value.toString(16).padStart(16, '0'), 'hex').reverse().toString('hex')
  return {
    tee_tcb_svn: toHex(report.teeTcbSvn),
    mrseam: toHex(report.mrSeam),
    td_attr: little(report.tdAttributes),
    xfam: little(report.xfam),
    mrtd: toHex(report.mrTd),
    rtmr0: rtmr0 ?? '',
    rtmr1: rtmr1 ?? '',
    rtmr2: rtmr2 ?? '',
    rtmr3: rtmr3 ?? '',
    reportdata: toHex(report.reportData),
  }
}

for (const entry of expected.quotes) {
  test(`the recorded quote ${entry.file} says what was read from it independently`, (t) => {
    const quote = parseQuote(quoteOf(entry))
    t.is<number, number>(quote.version, entry.version)
    t.is<number, number>(quote.certification.type, entry.qe_cert_type)
    for (const [name, value] of Object.entries(fieldsOf(quote))) {
      const wanted = entry[name]
      t.true(typeof wanted === 'string' && value.startsWith(wanted), name) // some are noted by their beginning
    }
  })

  test(`the signatures and the chain of the recorded quote ${entry.file} are ${entry.signature_verdict}ed`, (t) => {
    const context = { at: validTime(entry), nonce: undefined, collateral: NO_COLLATERAL, anchors: [] }
    const { endorsement, findings } = judgeQuote(parseQuote(quoteOf(entry)), context)
    t.is(entry.signature_verdict, 'accept')
    t.is(endorsement.pck?.extension.fmspc, entry.fmspc)
    t.is(endorsement.pck?.ca, entry.pck_cn[1]?.includes('Platform') === true ? 'platform' : 'processor')
    t.deepEqual(
      new Set(findings.map(({ code }) => code)),
      new Set(['unchecked_crl', 'unchecked_tcb', 'unchecked_qe_identity']),
    )
  })

  test(`the recorded quote ${entry.file} is not accepted outside its certificate’s validity`, (t) => {
    const at = new Date('2060-01-01')
    const context = { at, nonce: undefined, collateral: NO_COLLATERAL, anchors: [] }
    const { findings } = judgeQuote(parseQuote(quoteOf(entry)), context)
    t.true(findings.some(({ code }) => code === 'certificate_expired'))
  })

  const bytes = bytesOf(entry.file)
  if (bytes.length !== quoteOf(entry).length) {
    test(`the recorded quote ${entry.file} is refused with the text that stands behind it`, (t) => {
      t.throws(() => parseQuote(bytes), { code: 'ERR_QUOTE' })
    })
  }
}

for (const entry of expected['tcb_status_checked_with_npm_@phala/dcap-qvl@0.3.9']) {
  const [, status = '', list = ''] = /^accept (\w+),? (?:advisories )?\[(.*)\]$/.exec(entry.verdict) ?? []
  const [start = '', end = ''] = entry.valid_window.split('..')
  const collateral = readCollateral([fileOf(`tdx/${entry.collateral}`)])
  const judgedAt = (at: Date): ReturnType<typeof judgeQuote> =>
    judgeQuote(parseQuote(bytesOf(`tdx/${entry.quote}`)), { at, nonce: undefined, collateral, anchors: [] })

  test(`the platform of ${entry.quote} is ${status} by its collateral`, (t) => {
    for (const at of [new Date(start), new Date(end)]) {
      const { tcb, findings } = judgedAt(at)
      t.is<string | undefined, string>(tcb?.status, status)
      t.deepEqual([...(tcb?.advisoryIds ?? [])], list === '' ? [] : list.split(', '))
      // dcap-qvl does not look at the end of revocation lists, which one of these reaches before its TCB information does.
      const lists = collateral.crls.every(({ nextUpdate }) => nextUpdate >= at) ? [] : ['crl_expired']
      t.deepEqual(
        findings.map(({ code }) => code),
        [...lists, ...(status === 'UpToDate' ? [] : ['tcb_status'])],
      )
    }
  })

  test(`the collateral of ${entry.quote} counts for nothing one second outside its time`, (t) => {
    const early = judgedAt(new Date(new Date(start).getTime() - 1000)).findings
    const late = judgedAt(new Date(new Date(end).getTime() + 1000)).findings
    t.true(early.some(({ severity, code }) => severity === 'contraindicated' && /not_yet_valid/.test(code)))
    t.true(late.some(({ severity, code }) => severity === 'contraindicated' && /expired/.test(code)))
  })
}

test('the recorded quote with its whole collateral is affirmed', (t) => {
  const collateral = readCollateral([fileOf('tdx/dcap-qvl/sample/tdx_quote_collateral.json')])
  const context = { at: new Date('2025-07-01'), nonce: undefined, collateral, anchors: [] }
  const verdict = verdictOf(appraiseTdx(parseTdxEvidence(bytesOf('tdx/dcap-qvl/sample/tdx_quote')), context))
  t.is(verdict.verdict, 'affirming')
  t.is(verdict.claims.tcb_status, 'UpToDate')
})

test('quotes of enclaves are refused as evidence of a TD', (t) => {
  const evidence = parseTdxEvidence(bytesOf('tdx/dcap-qvl/sample/sgx_quote'))
  const context = { at: new Date(), nonce: undefined, collateral: NO_COLLATERAL, anchors: [] }
  t.throws(() => appraiseTdx(evidence, context), { code: 'ERR_QUOTE_UNSUPPORTED' })
})

test('the sample of Intel’s library, whose platform certificate is not in the quote, is accepted under its own root only', (t) => {
  const folder = 'tdx/intel-qvl/sampleData/'
  const files = readdirSync(new URL(folder, VECTORS)).filter((name) =>
    /Chain|Crl|pckCert|tcbInfo|qeIdentity/.test(name),
  )
  const collateral = readCollateral(files.map((name) => fileOf(folder + name)))
  const root = parseCertificate(readFileSync(new URL(`${folder}trustedRootCaCert.pem`, VECTORS), 'utf8'))
  const quote = parseQuote(bytesOf(`${folder}quote.dat`))
  const judged = (at: string, anchors = [root]): string[] =>
    judgeQuote(quote, { at: new Date(at), nonce: undefined, collateral, anchors }).findings.map(({ code }) => code)
  t.deepEqual(judged('2020-01-01'), [])
  t.true(judged('2020-01-01', []).some((code) => code.startsWith('chain_')))
  t.true(judged('2027-01-01').includes('certificate_expired'))
  t.true(judged('2019-09-01').includes('certificate_not_yet_valid'))
})

const googleFolder = 'tdx/go-tdx-guest/testing/testdata/'
const googleQuote = expected.quotes.find(({ file }) => file.endsWith('SPR_E4.dat'))

test('Google’s collateral is accepted at its time, expired later, and names levels that the recorded quote does not reach', (t) => {
  const signer = fileOf('tdx/dcap-qvl/sample/tdx_quote_collateral.json') // the chain is not among Google’s files
  const files = ['sample_tcbInfo_response', 'sample_qeIdentity_response', 'pckcrl', 'rootcrl.der']
  const { certificates } = readCollateral([signer])
  const own = readCollateral(files.map((name) => fileOf(googleFolder + name)))
  const collateral = { ...own, certificates: [...own.certificates, ...certificates] }
  if (googleQuote === undefined) throw new Error('the quote is missing')
  const quote = parseQuote(quoteOf(googleQuote))
  const judged = (at: string): string[] =>
    judgeQuote(quote, { at: new Date(at), nonce: undefined, collateral, anchors: [] }).findings.map(({ code }) => code)
  const [first, later] = [expected.upstream_tdx_collateral[0]?.time ?? '', '2053-07-01']
  const now = judged(first)
  // The signer's certificate in use today began later; everything else about the documents holds.
  t.deepEqual(
    now.filter((code) => !['certificate_not_yet_valid', 'tcb_not_supported'].includes(code)),
    [],
  )
  t.true(now.includes('tcb_not_supported'))
  t.true(judged(later).includes('collateral_expired'))
})

for (const { offset, value } of expected['go-tdx-guest_mutations_on_tdx_prod_quote_SPR_E4']) {
  test(`byte ${offset} of the recorded quote changed to ${value} makes it refused`, (t) => {
    if (googleQuote === undefined) throw new Error('the quote is missing')
    const bytes = quoteOf(googleQuote)
    bytes[Number(offset)] = Number(value)
    const judged = (): boolean => {
      const context = { at: validTime(googleQuote), nonce: undefined, collateral: NO_COLLATERAL, anchors: [] }
      return judgeQuote(parseQuote(bytes), context).findings.some(({ severity }) => severity === 'contraindicated')
    }
    let refused: boolean
    try {
      refused = judged()
    } catch {
      refused = true
    }
    t.true(refused)
  })
}

for (const [path, registers] of Object.entries(expected.event_log_replay_sha384)) {
  test(`the recorded event log ${path} replays to its registers`, (t) => {
    const log = parseEventLog(bytesOf(`tdx/${path}`))
    const rtmrs = replayRtmrs(log).map(toHex)
    for (const index of [0, 1, 2]) {
      const wanted = registers[`rtmr${index}`]
      if (wanted !== undefined) t.is(rtmrs[index], String(wanted))
    }
  })
}

for (const pair of expected.pairs) {
  test(`the recorded event log ${pair.ccel} belongs to its quote, and to no other`, (t) => {
    const log = bytesOf(`tdx/${pair.ccel}`)
    const own = tdxEvidenceOf(bytesOf(`tdx/${pair.quote}`), log)
    const other = tdxEvidenceOf(bytesOf('tdx/dcap-qvl/sample/tdx_quote'), log)
    const found = ({ quote, eventLog }: typeof own): string[] =>
      quote.body.tee === 'tdx' && eventLog !== undefined
        ? eventLogFindings(eventLog, quote.body.report).map(({ message }) => message)
        : ['nothing']
    t.deepEqual(found(own), [])
    t.deepEqual(
      found(other),
      [0, 1, 2].map((index) => `the event log does not replay to RTMR${index}`),
    )
  })
}

const TRUSTEE = 'tdx/trustee/deps/'

interface TrusteeEvent {
  readonly index: number
  readonly event_type: string
  readonly event: string
  readonly digests: readonly { readonly digest: string }[]
}

for (const name of ['CCEL_data', 'CCEL_data_ovmf']) {
  test(`the events of ${name} are those that CoCo’s reader lists`, (t) => {
    const folder = `${TRUSTEE}eventlog/test_data/`
    const out: { readonly uefi_event_logs: readonly TrusteeEvent[] } = JSON.parse(
      readFileSync(new URL(`${folder}${name}_out.json`, VECTORS), 'utf8'),
    )
    const { events } = parseEventLog(bytesOf(folder + name))
    // That list may begin with the header, which measures nothing.
    const listed = out.uefi_event_logs.filter(({ event_type }) => event_type !== 'EV_NO_ACTION')
    t.true(events.length > 0)
    t.deepEqual(
      events.map(({ pcr, digests, data }) => [
        pcr,
        toHex(digests.sha384 ?? new Uint8Array()),
        Buffer.from(data).toString('base64'),
      ]),
      listed.map(({ index, digests, event }) => [index, digests[0]?.digest, event]),
    )
  })
}

test('the claims about a recorded quote are those that CoCo’s verifier makes', (t) => {
  const folder = `${TRUSTEE}verifier/test_data/`
  const { quote }: { readonly quote: { readonly body: Readonly<Record<string, string>> } } = JSON.parse(
    readFileSync(new URL(`${folder}parse_tdx_claims_expected.json`, VECTORS), 'utf8'),
  )
  const context = { at: new Date('2024-12-01'), nonce: undefined, collateral: NO_COLLATERAL, anchors: [] }
  const evidence = parseTdxEvidence(bytesOf(`${folder}tdx_quote_4.dat`))
  const verdict = verdictOf(appraiseTdx(evidence, context))
  const names: Readonly<Record<string, string>> = {
    mr_td: 'mrtd',
    mrsigner_seam: 'mr_signer_seam',
    tcb_svn: 'tee_tcb_svn',
    ...Object.fromEntries([0, 1, 2, 3].map((index) => [`rtmr_${index}`, `rtmr${index}`])),
  }
  for (const [name, value] of Object.entries(quote.body)) t.is(verdict.claims[names[name] ?? name], value, name)
  t.is(verdict.verdict, 'contraindicated') // its TD is under debug
  t.true(verdict.reasons.some(({ code }) => code === 'debug'))
})
