/** Recorded evidence of real processors gets the verdict that `_expected` states, and anything changed in it does not. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { type Collateral, readCollateral } from '#attestation/evidence/collateral'
import type { AppraisalContext } from '#attestation/evidence/context'
import { type EvidenceVerdict, verdictOf } from '#attestation/evidence/verdict'
import { appraiseSnp } from '#attestation/snp/appraise'
import { parseSnpEvidence } from '#attestation/snp/parse/evidence'
import { parseVekExtensions } from '#attestation/snp/parse/vek-extensions'
import { amdAuthorities } from '#attestation/snp/verify/amd-authorities'
import { verifyReportSignature } from '#attestation/snp/verify/report-signature'
import { verifyVekChain } from '#attestation/snp/verify/vek-chain'
import { parseCertificate } from '#attestation/x509/certificate'
import { parseCrl, verifyCrl } from '#attestation/x509/crl'
import { toHex } from '#protocol/encoding'
import { CaissonError } from '#protocol/errors'
import { text as derText } from '../../fixtures/x509/encode-der.ts'

const read = (path: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../../vectors/${path}`, import.meta.url)))
const text = (path: string): string => Buffer.from(read(path)).toString('utf8')
const collateral = (...paths: readonly string[]): Collateral =>
  readCollateral(paths.map((name) => ({ name, bytes: read(name) })))

interface ReportVector {
  readonly report: string
  readonly vek: string
  readonly fields: Readonly<Record<string, string | number>>
  readonly report_signature_valid: boolean
  readonly vek_valid: readonly [string, string]
  readonly vek_ext: Readonly<Record<string, string>>
  readonly verdict: 'accept' | 'reject'
}

const expected = JSON.parse(text('snp/_expected/reports.json')) as {
  readonly reports: readonly ReportVector[]
  readonly json_evidence: readonly { readonly file: string; readonly verdict: string }[]
  readonly crl: readonly {
    readonly file: string
    readonly issuer: string
    readonly thisUpdate: string
    readonly nextUpdate: string
    readonly revoked: readonly string[]
  }[]
}
const IA5 = 0x16
const CRL = expected.crl[0]?.file ?? ''

function judge(evidence: unknown, at: Date, files: readonly string[], nonce?: Uint8Array): EvidenceVerdict {
  const context: AppraisalContext = { at, nonce, collateral: collateral(...files), anchors: [] }
  return verdictOf(appraiseSnp(parseSnpEvidence(evidence), context))
}

const inside = ({ vek_valid: [from] }: ReportVector): Date => new Date(new Date(from).getTime() + 86_400_000)
const codes = ({ reasons }: EvidenceVerdict): string[] => reasons.map(({ code }) => code)

for (const vector of expected.reports) {
  test(`${vector.report}: its fields are read`, (t) => {
    const { report } = parseSnpEvidence(read(vector.report))
    const { family = 0, model = 0, stepping = 0 } = report.cpuid ?? {}
    const { major, minor, build } = report.currentVersion
    const fields: ReportVector['fields'] = {
      version: report.version,
      guest_svn: report.guestSvn,
      policy: `0x${report.policy.toString(16)}`,
      vmpl: report.vmpl,
      signing_key: report.signingKey.toUpperCase(),
      reported_tcb: toHex(report.reportedTcb),
      committed_tcb: toHex(report.committedTcb),
      cpuid_fms: toHex(Uint8Array.of(family, model, stepping)),
      chip_id: toHex(report.chipId),
      measurement: toHex(report.measurement),
      report_data: toHex(report.reportData),
      host_data: toHex(report.hostData),
      cur_ver: `${major}.${minor}.${build}`,
    }
    t.deepEqual(fields, vector.fields)
  })

  test(`${vector.report}: signature and chain hold, and the key’s certificate says what it should`, (t) => {
    const { report } = parseSnpEvidence(read(vector.report))
    const [vek] = collateral(vector.vek).certificates
    if (vek === undefined) return t.fail()
    t.is(verifyReportSignature(report, vek.publicKey), vector.report_signature_valid)
    const kind = report.signingKey === 'vlek' ? 'vlek' : 'vcek'
    const request = { vek, kind, certificates: [], crls: [], anchors: [], at: inside(vector) } as const
    t.deepEqual(
      verifyVekChain(request).problems.map(({ code }) => code),
      ['crl_missing'],
    )
    const extensions = parseVekExtensions(vek)
    const hwid = extensions.hwid === undefined ? undefined : toHex(extensions.hwid)
    t.deepEqual([toHex(derText(extensions.productName, IA5)), hwid], [vector.vek_ext['2'], vector.vek_ext['4']])
    t.deepEqual(extensions.tcb, report.reportedTcb)
  })

  test(`${vector.report}: the verdict is the expected one while the certificate is valid, and a refusal before and after`, (t) => {
    t.is(vector.verdict, 'accept')
    const found = judge(read(vector.report), inside(vector), [vector.vek])
    // A guest that its host may debug is refused for that alone, and nobody accepts a chain without its revocation list.
    const debug = (BigInt(vector.fields.policy ?? 0) & 0x80000n) !== 0n
    t.deepEqual(codes(found), ['unchecked_crl', ...(debug ? ['debug'] : [])])
    for (const [index, code] of ['certificate_not_yet_valid', 'certificate_expired'].entries()) {
      const boundary = new Date(vector.vek_valid[index] ?? '').getTime()
      const outside = judge(read(vector.report), new Date(boundary + (index === 0 ? -1000 : 1000)), [vector.vek])
      t.is(outside.verdict, 'contraindicated')
      t.true(codes(outside).includes(code))
      t.false(codes(judge(read(vector.report), new Date(boundary), [vector.vek])).includes(code))
    }
  })
}

for (const { file, verdict } of expected.json_evidence) {
  test(`${file}: JSON of an attester becomes the bytes that were signed`, (t) => {
    t.is(verdict, 'accept')
    const at = new Date('2025-06-01')
    const found = judge(read(file), at, [])
    t.deepEqual(codes(found), ['unchecked_crl'])
    t.deepEqual(judge(text(file), at, []), found)
    t.deepEqual(judge(JSON.parse(text(file)), at, []), found)
  })
}

for (const { file, issuer, thisUpdate, nextUpdate, revoked } of expected.crl) {
  test(`${file}: AMD’s revocation list is genuine and is what a verdict needs`, (t) => {
    const crl = parseCrl(text(file))
    t.is(issuer, 'ARK-Milan')
    t.true(verifyCrl(crl, amdAuthorities().Milan.ark))
    t.false(verifyCrl(crl, amdAuthorities().Genoa.ark))
    t.is(crl.thisUpdate.toISOString().slice(0, 10), thisUpdate)
    t.is(crl.nextUpdate.toISOString().slice(0, 10), nextUpdate)
    t.deepEqual([...crl.revoked.keys()], [...revoked])
  })
}

const vlek = expected.reports.find(({ fields }) => fields.signing_key === 'VLEK')
const AFFIRMED_AT = new Date('2025-07-01')

test('evidence of a real processor with its revocation list is affirmed, with and without its nonce', (t) => {
  if (vlek === undefined) return t.fail()
  const nonce = Buffer.from(String(vlek.fields.report_data), 'hex')
  t.is(judge(read(vlek.report), AFFIRMED_AT, [vlek.vek, CRL]).verdict, 'affirming')
  t.is(judge(read(vlek.report), AFFIRMED_AT, [vlek.vek, CRL], nonce).verdict, 'affirming')
  t.is(judge(read(vlek.report), AFFIRMED_AT, [vlek.vek, CRL], nonce.subarray(1)).verdict, 'contraindicated')
})

test('no byte of an affirmed report can be changed: all are signed, or must be zero', (t) => {
  if (vlek === undefined) return t.fail()
  const context: AppraisalContext = {
    at: AFFIRMED_AT,
    nonce: undefined,
    collateral: collateral(vlek.vek, CRL),
    anchors: [],
  }
  const good = read(vlek.report)
  const meaningless: number[] = []
  for (let at = 0; at < good.length; at++) {
    const changed = good.slice()
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
    if (!isRefused(() => verdictOf(appraiseSnp(parseSnpEvidence(changed), context)))) meaningless.push(at)
  }
  t.deepEqual(meaningless, [])
})

test('no byte of the certificate of its key can be changed', (t) => {
  if (vlek === undefined) return t.fail()
  const others = collateral(CRL)
  const evidence = parseSnpEvidence(read(vlek.report))
  const good = read(vlek.vek)
  const affirmed: number[] = []
  for (let at = 0; at < good.length; at++) {
    const changed = good.slice()
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
    const refused = isRefused(() => {
      const context = {
        at: AFFIRMED_AT,
        nonce: undefined,
        collateral: { ...others, certificates: [parseCertificate(changed)] },
        anchors: [],
      }
      return verdictOf(appraiseSnp(evidence, context))
    })
    if (!refused) affirmed.push(at)
  }
  t.deepEqual(affirmed, [])
})

test('no byte of the revocation list can be changed', (t) => {
  if (vlek === undefined) return t.fail()
  const evidence = parseSnpEvidence(read(vlek.report))
  const { certificates, crls } = collateral(vlek.vek, CRL)
  const good = crls[0]?.der ?? new Uint8Array()
  const affirmed: number[] = []
  for (let at = 0; at < good.length; at++) {
    const changed = good.slice()
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
    const refused = isRefused(() => {
      const mixed = { certificates, crls: [parseCrl(changed)], documents: [], ignored: [] }
      return verdictOf(appraiseSnp(evidence, { at: AFFIRMED_AT, nonce: undefined, collateral: mixed, anchors: [] }))
    })
    if (!refused) affirmed.push(at)
  }
  t.deepEqual(affirmed, [])
})

/** Anything but our own errors is a fault of the code. */
function isRefused(run: () => EvidenceVerdict): boolean {
  try {
    return run().verdict !== 'affirming'
  } catch (error) {
    if (error instanceof CaissonError) return true
    throw error
  }
}

test('certificates with broken bodies are read in both layouts of their chip id, and not believed', (t) => {
  for (const layout of ['legacy', 'new']) {
    const certificate = parseCertificate(
      read(`snp/trustee/deps/verifier/test_data/snp/test-vcek-invalid-${layout}.der`),
    )
    const { hwid, product } = parseVekExtensions(certificate)
    t.is(hwid?.length, 64)
    t.is(product, 'Milan')
    const request = {
      vek: certificate,
      kind: 'vcek',
      certificates: [],
      crls: [],
      anchors: [],
      at: new Date('2025-01-01'),
    } as const
    t.is(verifyVekChain(request).problems[0]?.code, 'bad_signature')
  }
})

test('a VCEK of Turin leads to AMD’s root for Turin, and says its eight bytes of chip id and its FMC level', (t) => {
  const vek = parseCertificate(read('snp/virtee-sev/tests/certs_data/vcek_turin.der'))
  const chain = verifyVekChain({
    vek,
    kind: 'vcek',
    certificates: [],
    crls: [],
    anchors: [],
    at: new Date('2025-06-01'),
  })
  t.deepEqual(
    chain.problems.map(({ code }) => code),
    ['crl_missing'],
  )
  t.is(chain.product, 'Turin')
  const { structVersion, hwid } = parseVekExtensions(vek)
  t.is(structVersion, 1)
  t.is(hwid?.length, 8)
})

test('AMD’s authorities are those that independent projects hand out', (t) => {
  for (const [product, { ark, ask, asvk }] of Object.entries(amdAuthorities())) {
    const line = product.toLowerCase()
    const folder = `snp/lunal-attestation-rs/certs/amd/${line}`
    t.deepEqual(ark.der, read(`${folder}/ark.der`))
    t.deepEqual(ask.der, read(`${folder}/ask.der`))
    t.deepEqual(asvk.der, read(`${folder}/asvk.der`))
    const suffix = line === 'turin' ? '_vcek' : ''
    const others = collateral(
      `snp/go-sev-guest/verify/trust/ask_ark_${line}${suffix}.pem`,
      `snp/go-sev-guest/verify/trust/ask_ark_${line}_vlek.pem`,
      `snp/virtee-sev/src/certs/snp/builtin/${line}/ark.pem`,
      `snp/virtee-sev/src/certs/snp/builtin/${line}/ask.pem`,
    )
    const fingerprints = (certificates: typeof others.certificates): string[] =>
      certificates.map(({ der }) => toHex(der)).toSorted()
    t.deepEqual(fingerprints(others.certificates), fingerprints([ark, ask, asvk]))
  }
})
