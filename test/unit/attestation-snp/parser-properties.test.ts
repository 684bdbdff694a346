/** Every reader of SNP's formats answers with a value that keeps a promise, or refuses with an error of ours. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { createIdAuth, createIdBlock } from '#attestation/measure/snp/id-block'
import { parseSevFirmware } from '#attestation/measure/snp/sev-firmware'
import { parseCertificateTable } from '#attestation/snp/parse/certificate-table'
import { parseSnpEvidence } from '#attestation/snp/parse/evidence'
import { parseIdAuth, parseIdBlock } from '#attestation/snp/parse/id-block'
import { parseSnpReport } from '#attestation/snp/parse/report'
import { parseVekExtensions } from '#attestation/snp/parse/vek-extensions'
import { parseCertificate } from '#attestation/x509/certificate'
import { makeReport, VEK, vekDer } from '../../fixtures/snp/amd-like.ts'
import { altered, damaged, refusesOrKeeps } from '../parser-property.ts'

const read = (path: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../../vectors/snp/${path}`, import.meta.url)))
const REPORT = makeReport({ version: 5, tcb: new Uint8Array(8), cpuid: [0x19, 1, 1] })
const OVMF = read('measure/sev-snp-measure/fixtures/ovmf_AmdSev_suffix.bin')
const JSON_TEXT = Buffer.from(read('trustee/attestation-service/tests/e2e/evidence.json')).toString()

/** A good value with a piece replaced by another, of any length; or anything. */
function spliced(good: Uint8Array): fc.Arbitrary<Uint8Array> {
  const changed = fc
    .tuple(fc.nat(good.length), fc.nat(8), fc.uint8Array({ maxLength: 8 }))
    .map(([at, length, piece]) => new Uint8Array([...good.subarray(0, at), ...piece, ...good.subarray(at + length)]))
  const replaced = fc.tuple(fc.nat(good.length - 1), fc.nat(255)).map(([at, byte]) => good.with(at, byte))
  return fc.oneof(
    { weight: 3, arbitrary: replaced },
    { weight: 2, arbitrary: changed },
    fc.uint8Array({ maxLength: 64 }),
  )
}

test('any bytes are a report that keeps them all, or are refused', (t) => {
  refusesOrKeeps(t, spliced(REPORT), parseSnpReport, ({ bytes }, input) => Buffer.compare(bytes, input) === 0)
})

test('any bytes are evidence that begins with its report, or are refused', (t) => {
  const table = new Uint8Array([...REPORT, ...new Uint8Array(24)])
  refusesOrKeeps(
    t,
    fc.oneof(spliced(REPORT), spliced(table)),
    parseSnpEvidence,
    ({ report }, input) => Buffer.compare(report.bytes, input.subarray(0, report.bytes.length)) === 0,
  )
})

test('any text and any JSON is evidence with a whole report, or is refused', (t) => {
  refusesOrKeeps(t, damaged(JSON_TEXT), parseSnpEvidence, ({ report }) => report.bytes.length === 1184)
  const { attestation_report } = JSON.parse(JSON_TEXT) as { attestation_report: Record<string, unknown> }
  refusesOrKeeps(
    t,
    altered(attestation_report).map((report) => ({ attestation_report: report })),
    parseSnpEvidence,
    ({ report }) => report.bytes.length === 1184,
  )
})

test('any bytes are a table whose entries lie within, or are refused', (t) => {
  const entry = fc
    .tuple(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(200), fc.nat(200))
    .map(([guid, offset, length]) => {
      const bytes = new Uint8Array(24)
      bytes.set(guid)
      bytes.set([offset, 0, 0, 0, length], 16)
      return bytes
    })
  const tables = fc
    .tuple(fc.array(entry, { maxLength: 4 }), fc.uint8Array({ maxLength: 128 }))
    .map(
      ([entries, rest]) => new Uint8Array([...entries.flatMap((bytes) => [...bytes]), ...new Uint8Array(24), ...rest]),
    )
  refusesOrKeeps(t, fc.oneof(tables, fc.uint8Array({ maxLength: 128 })), parseCertificateTable, (entries, input) =>
    entries.every(({ bytes }) => bytes.length <= input.length),
  )
})

test('any certificate is one of an endorsement key with a whole TCB, or is refused', (t) => {
  const der = vekDer({ kind: 'vcek', product: 'Milan', tcb: new Uint8Array(8), hwid: new Uint8Array(64) })
  refusesOrKeeps(
    t,
    spliced(der),
    (bytes) => parseVekExtensions(parseCertificate(bytes)),
    ({ tcb, hwid }) => tcb.length === 8 && (hwid === undefined || hwid.length === 64 || hwid.length === 8),
  )
})

test('any bytes are an ID block and its authentication, or are refused', (t) => {
  const block = createIdBlock({ launchDigest: new Uint8Array(48) })
  refusesOrKeeps(t, spliced(block), parseIdBlock, ({ bytes }, input) => Buffer.compare(bytes, input) === 0)
  const auth = createIdAuth(block, { idKey: VEK.privateKey, authorKey: VEK.privateKey })
  refusesOrKeeps(t, spliced(auth), parseIdAuth, ({ idKey }) => idKey.x.length === 72 && idKey.y.length === 72)
  for (let length = 0; length < auth.length; length += 61) t.throws(() => parseIdAuth(auth.subarray(0, length)))
  for (let length = 0; length < block.length; length++) t.throws(() => parseIdBlock(block.subarray(0, length)))
})

test('any bytes are firmware whose sections are whole pages, or are refused', (t) => {
  const tail = fc.tuple(fc.nat(0x200), fc.uint8Array({ minLength: 1, maxLength: 8 })).map(([fromEnd, bytes]) => {
    const image = OVMF.slice()
    image.set(bytes.subarray(0, Math.min(bytes.length, fromEnd)), image.length - fromEnd)
    return image
  })
  refusesOrKeeps(
    t,
    fc.oneof(tail, spliced(OVMF)),
    parseSevFirmware,
    ({ sections, image }, input) =>
      image === input && sections.every(({ gpa, bytes }) => gpa % 4096 === 0 && bytes % 4096 === 0),
  )
})
