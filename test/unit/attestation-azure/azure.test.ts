/**
 * Evidence of Azure's confidential machines: what real machines sent is judged as expected, and no part of it can be changed,
 * cut or exchanged without being noticed.
 */
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { appraiseAzure, azureTee } from '#attestation/azure/appraise'
import { isAzureEvidence, parseAzureEvidence, parseAzureReport } from '#attestation/azure/parse/evidence'
import { isHclReport, parseHclReport } from '#attestation/azure/parse/hcl-report'
import { boundReportData } from '#attestation/azure/verify/binding'
import { NO_COLLATERAL } from '#attestation/evidence/collateral'
import type { AppraisalContext } from '#attestation/evidence/context'
import { type EvidenceVerdict, type Tee, verdictOf } from '#attestation/evidence/verdict'
import { parseCrl } from '#attestation/x509/crl'
import { concatBytes, toHex } from '#protocol/encoding'
import { CaissonError, MalformedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { altered, refusesOrKeeps } from '../parser-property.ts'

const vector = (path: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../../vectors/${path}`, import.meta.url)))
const json = (path: string): Record<string, unknown> => JSON.parse(Buffer.from(vector(path)).toString())

interface Case {
  readonly file: string
  readonly nonce_utf8?: string
  readonly pcr0?: string
  readonly mutation?: string
  readonly verdict: string
}
const cases: readonly Case[] = JSON.parse(Buffer.from(vector('tpm/_expected/quotes.json')).toString()).cases
const SNP = 'tpm/trustee/az-snp-vtpm/'
const TDX = 'tpm/trustee/az-tdx-vtpm/'
const snpReport = vector(`${SNP}hcl-report.bin`)
const tdxReport = vector(`${TDX}hcl-report.bin`)
const v0 = json(`${SNP}evidence-v0.json`)
const v1 = json(`${SNP}evidence-v1.json`)
const td = json(`${TDX}evidence-v0.json`)

/** When every certificate among the vectors is valid. */
const AT = new Date('2025-06-01T00:00:00Z')
const NONCE = new TextEncoder().encode('challenge')

function judge(document: unknown, changes: Partial<AppraisalContext> = {}, tee?: Tee): EvidenceVerdict {
  const evidence = parseAzureEvidence(document as Parameters<typeof parseAzureEvidence>[0])
  const context = { at: AT, nonce: NONCE, collateral: NO_COLLATERAL, anchors: [], ...changes }
  return verdictOf(appraiseAzure(evidence, context, tee ?? azureTee(evidence)))
}

const codes = ({ reasons }: EvidenceVerdict): string[] => reasons.map(({ code }) => code)
/** Of the vTPM's half and of what ties it to the hardware's. */
const OURS = ['quote_signature', 'nonce_mismatch', 'pcr_digest_mismatch', 'runtime_claims_mismatch', 'vmpl', 'no_quote']
const ours = (verdict: EvidenceVerdict): string[] => codes(verdict).filter((code) => OURS.includes(code))

for (const { file, nonce_utf8 = '', pcr0 } of cases.filter(({ file }) => /evidence-v\d\.json$/.test(file))) {
  test(`both halves of ${file.replace('tpm/trustee/', '')} belong together and answer the challenge`, (t) => {
    const verdict = judge(json(file), { nonce: new TextEncoder().encode(nonce_utf8) })
    t.deepEqual(ours(verdict), [])
    t.like(verdict.claims, { report_data: toHex(new TextEncoder().encode(nonce_utf8)) })
    t.like(verdict.claims.pcrs, { sha256: { 0: pcr0 } })
    t.like(verdict.claims.vm_configuration, { 'secure-boot': true })
    t.like(judge(json(file), {}, 'tpm'), { tee: 'tpm', verdict: verdict.verdict })
  })
}

test('an SNP machine of Azure whose certificates are known lacks only the revocation list', (t) => {
  t.deepEqual(codes(judge(v0)), ['unchecked_crl'])
  t.deepEqual(codes(judge(v1)), ['unchecked_crl'])
  t.is(judge(v1).verdict, 'warning')
})

test('with AMD’s revocation list both halves of an SNP machine are affirmed', (t) => {
  const crl = parseCrl(Buffer.from(vector('snp/openpcc/sev_certificates/test_amd_milan_crl.pem')).toString())
  const collateral = { ...NO_COLLATERAL, crls: [crl] }
  for (const tee of ['snp', 'tpm'] as const) {
    t.is(judge(v1, { collateral }, tee).verdict, 'affirming')
    t.is(judge(v1, { collateral, nonce: Uint8Array.of(1) }, tee).verdict, 'contraindicated')
  }
})

test('the quotes that came apart verify under the key that the report names, for the challenge', (t) => {
  for (const { file, hcl } of [
    { file: `${SNP}tpm-quote-v1.json`, hcl: snpReport },
    { file: `${TDX}tpm-quote-v1.json`, hcl: tdxReport },
  ]) {
    const base64 = Buffer.from(hcl).toString('base64url')
    const document = {
      version: 1,
      hcl_report: base64,
      tpm_quote: json(file),
      ...(hcl === tdxReport && { td_quote: td.td_quote }),
    }
    t.deepEqual(ours(judge(document)), [], file)
    t.deepEqual(ours(judge(document, { nonce: Uint8Array.of(1) })), ['nonce_mismatch'])
  }
})

test('a report whose runtime claims are not those of the quote is refused', (t) => {
  const changed = tdxReport.slice()
  changed[0x0880] = (changed[0x0880] ?? 0) + 1
  t.deepEqual(ours(judge({ ...td, hcl_report: [...changed] })), ['runtime_claims_mismatch'])
})

test('halves of different machines are refused', (t) => {
  const other = { ...v1, hcl_report: Buffer.from(snpReport).toString('base64url') }
  t.true(ours(judge(other)).includes('quote_signature'))
  const otherQuote = { ...v1, tpm_quote: json(`${SNP}tpm-quote-v1.json`) }
  t.deepEqual(ours(judge(otherQuote)), ['quote_signature'])
  t.throws(() => judge({ ...td, hcl_report: [...snpReport] }), { code: 'ERR_AZURE_EVIDENCE' })
  t.throws(() => judge({ ...v1, hcl_report: Buffer.from(tdxReport).toString('base64url') }), {
    code: 'ERR_AZURE_EVIDENCE',
  })
})

test('a report that the guest asked for itself does not vouch for runtime claims', (t) => {
  const bytes = parseHclReport(snpReport)
  t.is(new DataView(bytes.hardwareReport.buffer).getUint32(0x30, true), 0)
  const changed = snpReport.slice()
  changed[0x20 + 0x30] = 2
  const verdict = verdictOf(
    appraiseAzure(
      parseAzureReport(changed),
      { at: AT, nonce: undefined, collateral: NO_COLLATERAL, anchors: [] },
      'snp',
    ),
  )
  t.true(codes(verdict).includes('vmpl'))
})

test('PCR values that the quote does not sign are refused', (t) => {
  const quote = v1.tpm_quote as { pcrs: string[] }
  const pcrs = quote.pcrs.with(4, '00'.repeat(32))
  t.deepEqual(ours(judge({ ...v1, tpm_quote: { ...quote, pcrs } })), ['pcr_digest_mismatch'])
  t.throws(() => judge({ ...v1, tpm_quote: { ...quote, pcrs: quote.pcrs.slice(1) } }), { code: 'ERR_AZURE_EVIDENCE' })
  t.throws(() => judge({ ...v1, tpm_quote: { ...quote, pcrs: quote.pcrs.with(0, '00') } }), {
    code: 'ERR_AZURE_EVIDENCE',
  })
})

test('no byte of the evidence can be changed without being refused or contradicted', (t) => {
  const quote = v1.tpm_quote as { message: string; signature: string; pcrs: string[] }
  const hcl = Buffer.from(v1.hcl_report as string, 'base64url')
  const { size } = { size: hcl.readUInt32LE(8) }
  /** Neither signed nor hashed, nor of any meaning: version and request type of the header, version of the request. */
  const meaningless = (at: number): boolean =>
    (at >= 4 && at < 8) || (at >= 12 && at < 16) || (at >= 0x4c4 && at < 0x4c8)
  for (let at = 0; at < size; at += 23) {
    const changed = Buffer.from(hcl)
    changed[at] = (changed[at] ?? 0) ^ 0x20
    const verdict = contradicted({ ...v1, hcl_report: changed.toString('base64url') })
    t.true(verdict || meaningless(at), `hcl report at ${at}`)
  }
  for (const member of ['message', 'signature'] as const) {
    const bytes = Buffer.from(quote[member], 'hex')
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 0x20
      t.true(contradicted({ ...v1, tpm_quote: { ...quote, [member]: changed.toString('hex') } }), `${member} at ${at}`)
    }
  }
})

function contradicted(document: unknown): boolean {
  try {
    return judge(document).verdict === 'contraindicated'
  } catch (error) {
    if (error instanceof CaissonError) return true
    throw error
  }
}

// ---- the paravisor's report

test('the paravisor’s report is read to its parts', (t) => {
  for (const [bytes, kind] of [
    [snpReport, 'snp'],
    [tdxReport, 'tdx'],
  ] as const) {
    const report = parseHclReport(bytes)
    t.true(isHclReport(bytes))
    t.is(report.kind, kind)
    t.is(report.hash, 'sha256')
    t.is(report.claims.attestationKey.key.asymmetricKeyDetails?.modulusLength, 2048)
    t.deepEqual(report.claims.userData, new Uint8Array(64))
    t.is(report.claims.vmConfiguration['tpm-enabled'], true)
  }
  const { hardwareReport } = parseHclReport(snpReport)
  t.deepEqual(boundReportData(nodeCrypto, parseHclReport(snpReport)), hardwareReport.slice(0x50, 0x90))
})

test('runtime claims may be hashed with SHA-384 and SHA-512 too', (t) => {
  for (const [type, hash, length] of [
    [2, 'sha384', 48],
    [3, 'sha512', 64],
  ] as const) {
    const changed = snpReport.slice()
    changed[0x4cc] = type
    const report = parseHclReport(changed)
    t.is(report.hash, hash)
    t.true(
      boundReportData(nodeCrypto, report)
        .slice(length)
        .every((byte) => byte === 0),
    )
  }
})

test('the bare report of an SNP machine is judged as its hardware’s, and as no TPM evidence', (t) => {
  const context = { at: AT, nonce: undefined, collateral: NO_COLLATERAL, anchors: [] }
  const evidence = parseAzureReport(snpReport)
  t.deepEqual(codes(verdictOf(appraiseAzure(evidence, context, 'snp'))), ['unchecked_chain'])
  t.deepEqual(ours(verdictOf(appraiseAzure(evidence, context, 'tpm'))), ['no_quote'])
  const reportData = evidence.hcl.hardwareReport.slice(0x50, 0x70)
  t.deepEqual(ours(verdictOf(appraiseAzure(evidence, { ...context, nonce: reportData }, 'snp'))), [])
  t.deepEqual(ours(verdictOf(appraiseAzure(evidence, { ...context, nonce: new Uint8Array(64) }, 'snp'))), [])
  t.deepEqual(ours(verdictOf(appraiseAzure(evidence, { ...context, nonce: NONCE }, 'snp'))), ['nonce_mismatch'])
  t.throws(() => parseAzureReport(tdxReport), { code: 'ERR_AZURE_EVIDENCE' })
})

test('a report that is cut, longer than it says, or of another kind is refused', (t) => {
  const size = new DataView(snpReport.buffer).getUint32(8, true)
  for (let length = 0; length < size; length++) {
    t.throws(() => parseHclReport(snpReport.slice(0, length)), { instanceOf: MalformedError }, `${length}`)
  }
  t.notThrows(() => parseHclReport(snpReport.slice(0, size)))
  t.throws(() => parseHclReport(concatBytes(snpReport, Uint8Array.of(1))), { code: 'ERR_HCL_REPORT' })
  t.throws(() => parseHclReport(new Uint8Array(65 * 1024)), { code: 'ERR_HCL_REPORT' })
  for (const [name, at, value] of [
    ['signature', 0, 0],
    ['size', 8, 0],
    ['status', 16, 1],
    ['reserved', 20, 1],
    ['reserved', 31, 1],
    ['size of the request', 0x4c0, 0],
    ['kind', 0x4c8, 3],
    ['hash', 0x4cc, 0],
    ['hash', 0x4cc, 4],
    ['size of the claims', 0x4d3, 1],
  ] as const) {
    const changed = snpReport.slice()
    changed[at] = value
    t.throws(() => parseHclReport(changed), { instanceOf: MalformedError }, `${name} at ${at}`)
  }
  const garbage = tdxReport.slice()
  garbage[0x20 + 1024] = 1
  t.throws(() => parseHclReport(garbage), { code: 'ERR_HCL_REPORT' })
})

/** The SNP report with other claims, whose hash the hardware does not carry. */
function withClaims(claims: string): Uint8Array {
  const data = new TextEncoder().encode(claims)
  const head = snpReport.slice(0, 0x4d4)
  const view = new DataView(head.buffer)
  view.setUint32(8, 0x4d4 + data.length, true)
  view.setUint32(0x4c0, 20 + data.length, true)
  view.setUint32(0x4d0, data.length, true)
  return concatBytes(head, data)
}
const claims: { keys: Record<string, unknown>[] } = JSON.parse(
  Buffer.from(parseHclReport(snpReport).runtimeData).toString(),
)

test('runtime claims must name one attestation key that a TPM can have', (t) => {
  t.notThrows(() => parseHclReport(withClaims(JSON.stringify(claims))))
  const [ak = {}] = claims.keys
  const wrong: readonly unknown[] = [
    {},
    [],
    { ...claims, keys: [] },
    { ...claims, keys: claims.keys.slice(1) },
    { ...claims, keys: [ak, ak] },
    { ...claims, keys: [{ ...ak, kty: 'oct' }] },
    { ...claims, keys: [{ ...ak, n: 'AQAB' }] },
    { ...claims, keys: [{ ...ak, n: undefined }] },
    { ...claims, keys: [{ kid: 'HCLAkPub', kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' }] },
    { ...claims, 'vm-configuration': [] },
    { ...claims, 'user-data': 'xyz' },
  ]
  for (const value of wrong) {
    t.throws(
      () => parseHclReport(withClaims(JSON.stringify(value))),
      { instanceOf: MalformedError },
      JSON.stringify(value),
    )
  }
  t.throws(() => parseHclReport(withClaims('')), { code: 'ERR_HCL_REPORT' })
  t.throws(() => parseHclReport(withClaims('{"keys":[')), { code: 'ERR_HCL_REPORT' })
})

test('whatever a report or the evidence is changed to, it is read or refused', (t) => {
  const changed = fc
    .tuple(fc.nat(snpReport.length), fc.nat(4), fc.uint8Array({ maxLength: 6 }))
    .map(([at, length, bytes]) => concatBytes(snpReport.slice(0, at), bytes, snpReport.slice(at + length)))
  refusesOrKeeps(t, fc.oneof({ weight: 4, arbitrary: changed }, fc.uint8Array({ maxLength: 64 })), parseHclReport)
  refusesOrKeeps(t, fc.oneof({ weight: 4, arbitrary: changed }, fc.uint8Array({ maxLength: 64 })), parseAzureReport)
  const parse = (document: unknown): unknown => parseAzureEvidence(document as Parameters<typeof parseAzureEvidence>[0])
  refusesOrKeeps(t, altered(v1), parse)
  refusesOrKeeps(t, altered(td), parse)
})

test('other documents are told apart from Azure’s', (t) => {
  for (const document of [v0, v1, td]) t.true(isAzureEvidence(document as Parameters<typeof isAzureEvidence>[0]))
  for (const document of [null, 1, 'x', [], {}, { quote: 1 }, { tpm_quote: {}, ak_public: '' }]) {
    t.false(isAzureEvidence(document))
    t.throws(() => parseAzureEvidence(document), { code: 'ERR_AZURE_EVIDENCE' })
  }
})
