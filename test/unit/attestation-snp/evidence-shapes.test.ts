/** The shapes in which SNP evidence travels are read to the same report; whatever is wrong with them is refused. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { parseCertificateTable } from '#attestation/snp/parse/certificate-table'
import { parseSnpEvidence, snpEvidenceOf } from '#attestation/snp/parse/evidence'
import { parseSnpReport, REPORT_BYTES } from '#attestation/snp/parse/report'
import { parseCertificate } from '#attestation/x509/certificate'
import { concatBytes, fromHex, toBase64, toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { makeReport, rootCrl } from '../../fixtures/snp/amd-like.ts'

const read = (path: string): Uint8Array =>
  new Uint8Array(readFileSync(new URL(`../../vectors/snp/${path}`, import.meta.url)))
const RAW = read('trustee/deps/verifier/test_data/snp/test-vlek-report.bin')
const VLEK = read('trustee/deps/verifier/test_data/snp/test-vlek.der')
const ASVK = read('lunal-attestation-rs/certs/amd/milan/asvk.der')
const ARK = read('lunal-attestation-rs/certs/amd/milan/ark.der')
const COCO = JSON.parse(Buffer.from(read('trustee/attestation-service/tests/e2e/evidence.json')).toString()) as {
  attestation_report: Record<string, unknown>
  cert_chain: unknown
}

const GUID = {
  vlek: 'a8074bc2a25a483eaae639c045a0b8a1',
  ask: '4ab7b379bbac4fe4a02f05aef327c782',
  ark: 'c0b406a4a803495297433fb6014cd0ae',
  crl: '92f81bc358114d3d97ffd19f88dc67ea',
  other: '00112233445566778899aabbccddeeff',
} as const

function table(entries: readonly (readonly [guid: string, bytes: Uint8Array])[]): Uint8Array {
  let offset = 24 * (entries.length + 1)
  const header = entries.map(([guid, bytes]) => {
    const place = new Uint8Array(8)
    new DataView(place.buffer).setUint32(0, offset, true)
    new DataView(place.buffer).setUint32(4, bytes.length, true)
    offset += bytes.length
    return concatBytes(fromHex(guid, 'GUID'), place)
  })
  return concatBytes(...header, new Uint8Array(24), ...entries.map(([, bytes]) => bytes))
}

const TABLE = table([
  [GUID.vlek, VLEK],
  [GUID.ask, ASVK],
  [GUID.ark, ARK],
  [GUID.crl, rootCrl('Milan').der],
  [GUID.other, Uint8Array.of(1, 2, 3)],
])

test('a report may be followed by the host’s certificates, in pages or not', (t) => {
  const bare = parseSnpEvidence(RAW)
  t.deepEqual([bare.certificates.length, bare.crls.length], [0, 0])
  for (const padding of [0, 1, 4096]) {
    const evidence = parseSnpEvidence(concatBytes(RAW, TABLE, new Uint8Array(padding)))
    t.deepEqual(evidence.report, bare.report)
    t.deepEqual(
      evidence.certificates.map(({ der }) => der),
      [VLEK, ASVK, ARK],
    )
    t.is(evidence.crls.length, 1)
  }
  t.is(parseSnpEvidence(concatBytes(RAW, new Uint8Array(24))).certificates.length, 0)
})

test('a table of certificates may spell its GUIDs in either byte order', (t) => {
  const swapped = table([['c24b07a85aa23e48aae639c045a0b8a1', VLEK]])
  t.deepEqual(
    parseCertificateTable(swapped).map(({ kind }) => kind),
    ['vlek'],
  )
})

test('the answer of the guest device is read', (t) => {
  const response = new Uint8Array(4000)
  new DataView(response.buffer).setUint32(4, REPORT_BYTES, true)
  response.set(RAW, 32)
  t.deepEqual(parseSnpEvidence(response).report, parseSnpReport(RAW))
})

test('outblob and auxblob of configfs-tsm are read from JSON', (t) => {
  const json = { provider: 'sev_guest', generation: 1, outblob: toBase64(RAW), auxblob: toBase64(TABLE) }
  const { report, certificates } = parseSnpEvidence(JSON.stringify(json))
  t.deepEqual(report, parseSnpReport(RAW))
  t.is(certificates.length, 3)
  t.is(parseSnpEvidence({ ...json, auxblob: undefined }).certificates.length, 0)
})

test('a report inside of other evidence is read with the certificates that came elsewhere', (t) => {
  const vlek = parseCertificate(VLEK)
  const evidence = snpEvidenceOf(RAW, [vlek])
  t.deepEqual(evidence, { report: parseSnpReport(RAW), certificates: [vlek], crls: [] })
})

test('certificates in JSON may be bytes, base64 or PEM', (t) => {
  const pem = `-----BEGIN CERTIFICATE-----\n${toBase64(VLEK)}\n-----END CERTIFICATE-----\n`
  for (const data of [[...VLEK], toBase64(VLEK), pem, [...new TextEncoder().encode(pem)]]) {
    const cert_chain = [
      { cert_type: 'VLEK', data },
      { cert_type: { OTHER: 'guid' }, data: [1] },
      { cert_type: 'Empty', data: [] },
    ]
    t.deepEqual(
      parseSnpEvidence({ ...COCO, cert_chain }).certificates.map(({ der }) => der),
      [VLEK],
    )
  }
  for (const cert_chain of [undefined, null, []]) t.is(parseSnpEvidence({ ...COCO, cert_chain }).certificates.length, 0)
})

/** The report as early versions of the library serialised it. */
function earlyForm(bytes: Uint8Array): Record<string, unknown> {
  const view = new DataView(bytes.buffer)
  const part = (from: number, to: number): number[] => [...bytes.subarray(from, to)]
  const tcb = (at: number): Record<string, unknown> => ({
    bootloader: bytes[at],
    tee: bytes[at + 1],
    _reserved: part(at + 2, at + 6),
    snp: bytes[at + 6],
    microcode: bytes[at + 7],
  })
  return {
    version: view.getUint32(0, true),
    guest_svn: view.getUint32(4, true),
    policy: Number(view.getBigUint64(8, true)),
    family_id: part(0x10, 0x20),
    image_id: part(0x20, 0x30),
    vmpl: view.getUint32(0x30, true),
    sig_algo: view.getUint32(0x34, true),
    current_tcb: tcb(0x38),
    plat_info: Number(view.getBigUint64(0x40, true)),
    _author_key_en: view.getUint32(0x48, true),
    _reserved_0: 0,
    report_data: part(0x50, 0x90),
    measurement: part(0x90, 0xc0),
    host_data: part(0xc0, 0xe0),
    id_key_digest: part(0xe0, 0x110),
    author_key_digest: part(0x110, 0x140),
    report_id: part(0x140, 0x160),
    report_id_ma: part(0x160, 0x180),
    reported_tcb: tcb(0x180),
    _reserved_1: part(0x188, 0x1a0),
    chip_id: part(0x1a0, 0x1e0),
    committed_tcb: tcb(0x1e0),
    current_build: bytes[0x1e8],
    current_minor: bytes[0x1e9],
    current_major: bytes[0x1ea],
    _reserved_2: 0,
    committed_build: bytes[0x1ec],
    committed_minor: bytes[0x1ed],
    committed_major: bytes[0x1ee],
    _reserved_3: 0,
    launch_tcb: tcb(0x1f0),
    _reserved_4: part(0x1f8, 0x2a0),
    signature: { r: part(0x2a0, 0x2e8), s: part(0x2e8, 0x330), _reserved: part(0x330, 0x4a0) },
  }
}

/** The report as later versions do, of a Turin processor and version 5. */
function lateForm(bytes: Uint8Array): Record<string, unknown> {
  const { _author_key_en, _reserved_0, _reserved_1, _reserved_2, _reserved_3, _reserved_4, ...early } = earlyForm(bytes)
  const view = new DataView(bytes.buffer)
  const tcb = (at: number): Record<string, unknown> => ({
    fmc: bytes[at],
    bootloader: bytes[at + 1],
    tee: bytes[at + 2],
    snp: bytes[at + 3],
    microcode: bytes[at + 7],
  })
  return {
    ...early,
    key_info: view.getUint32(0x48, true),
    current_tcb: tcb(0x38),
    reported_tcb: tcb(0x180),
    committed_tcb: tcb(0x1e0),
    launch_tcb: tcb(0x1f0),
    cpuid_fam_id: bytes[0x188],
    cpuid_mod_id: bytes[0x189],
    cpuid_step: bytes[0x18a],
    current: { major: bytes[0x1ea], minor: bytes[0x1e9], build: bytes[0x1e8] },
    committed: { major: bytes[0x1ee], minor: bytes[0x1ed], build: bytes[0x1ec] },
    launch_mit_vector: view.getBigUint64(0x1f8, true),
    current_mit_vector: view.getBigUint64(0x200, true),
  }
}

const TURIN_V5 = makeReport({
  version: 5,
  tcb: Uint8Array.of(1, 2, 3, 4, 0, 0, 0, 71),
  cpuid: [0x1a, 0x11, 0],
  mitigations: [2n ** 63n + 5n, 2n ** 53n + 1n],
  chipId: Uint8Array.from({ length: 64 }, (_, index) => (index < 8 ? 7 : 0)),
})

test('JSON of every version of the attesters’ library becomes the bytes that were signed', (t) => {
  const milan = makeReport({ tcb: Uint8Array.of(4, 0, 0, 0, 0, 0, 24, 217), cpuid: [0x19, 1, 1], version: 3 })
  t.deepEqual(parseSnpEvidence({ attestation_report: earlyForm(RAW) }).report.bytes, RAW)
  t.deepEqual(parseSnpEvidence({ attestation_report: earlyForm(milan) }).report.bytes, milan)
  // Early versions read Turin’s levels in the older layout, and lost nothing by it.
  t.deepEqual(parseSnpEvidence({ attestation_report: earlyForm(TURIN_V5) }).report.bytes, TURIN_V5)
  t.deepEqual(parseSnpEvidence({ attestation_report: lateForm(TURIN_V5) }).report.bytes, TURIN_V5)
})

test('64 bits keep their last bit on the way through JSON', (t) => {
  const exact = JSON.stringify({ attestation_report: lateForm(TURIN_V5) }, (_, value: unknown) =>
    typeof value === 'bigint' ? `<${value}>` : value,
  ).replace(/"<(\d+)>"/g, '$1')
  t.deepEqual(parseSnpEvidence(exact).report.bytes, TURIN_V5)
  t.deepEqual(parseSnpEvidence(new TextEncoder().encode(exact)).report.bytes, TURIN_V5)
  t.throws(() => parseSnpEvidence(JSON.parse(exact)), { code: 'ERR_SNP_EVIDENCE' })
})

test('bytes in JSON may be numbers, hexadecimal or base64, and so may the whole report', (t) => {
  const bytes = Uint8Array.from(COCO.attestation_report.measurement as number[])
  const { report } = parseSnpEvidence(COCO)
  for (const measurement of [toHex(bytes), toBase64(bytes)]) {
    t.deepEqual(parseSnpEvidence({ attestation_report: { ...COCO.attestation_report, measurement } }).report, report)
  }
  for (const whole of [toHex(report.bytes), toBase64(report.bytes), [...report.bytes]]) {
    t.deepEqual(parseSnpEvidence({ attestation_report: whole }).report, report)
  }
})

test('a report cut anywhere, or with something behind it, is refused', (t) => {
  for (let length = 0; length < REPORT_BYTES; length++) {
    t.throws(() => parseSnpReport(RAW.subarray(0, length)), { instanceOf: MalformedError })
    t.throws(() => parseSnpEvidence(RAW.subarray(0, length)), { instanceOf: MalformedError })
  }
  t.throws(() => parseSnpReport(concatBytes(RAW, new Uint8Array(1))), { code: 'ERR_SNP_REPORT' })
  for (const trailing of [Uint8Array.of(0), Uint8Array.of(1), new Uint8Array(23), new Uint8Array(100).fill(0xff)]) {
    t.throws(() => parseSnpEvidence(concatBytes(RAW, trailing)), { instanceOf: MalformedError })
  }
})

test('versions that are not known are refused', (t) => {
  for (const version of [0, 1, 6, 0x0200_0000]) {
    const report = RAW.slice()
    new DataView(report.buffer).setUint32(0, version, true)
    t.throws(() => parseSnpReport(report), { code: 'ERR_SNP_REPORT' })
  }
})

test('a table cut anywhere, or that refers outside of itself, is refused', (t) => {
  for (let length = 1; length < TABLE.length; length++) {
    t.throws(() => parseCertificateTable(TABLE.subarray(0, length)), { instanceOf: MalformedError })
  }
  const broken = (offset: number, length: number): Uint8Array => {
    const copy = TABLE.slice()
    new DataView(copy.buffer).setUint32(16, offset, true)
    new DataView(copy.buffer).setUint32(20, length, true)
    return copy
  }
  t.notThrows(() => parseCertificateTable(broken(24 * 6, 1)))
  t.throws(() => parseCertificateTable(broken(24 * 6 - 1, 1)), { code: 'ERR_SNP_CERTIFICATE_TABLE' })
  t.throws(() => parseCertificateTable(broken(0xffff_ffff, 0xffff_ffff)), { code: 'ERR_SNP_CERTIFICATE_TABLE' })
  t.throws(() => parseCertificateTable(broken(TABLE.length, 1)), { code: 'ERR_SNP_CERTIFICATE_TABLE' })
  t.throws(() => parseCertificateTable(new Uint8Array(24 * 40).fill(1)), { code: 'ERR_SNP_CERTIFICATE_TABLE' })
  t.throws(() => parseCertificateTable(new Uint8Array(2 * 1024 * 1024)), { code: 'ERR_SNP_CERTIFICATE_TABLE' })
})

const wrong: readonly [what: string, change: Record<string, unknown>][] = [
  ['a field is missing', { measurement: undefined }],
  ['a field is too short', { report_data: [1, 2, 3] }],
  ['a byte is none', { host_data: Array.from({ length: 32 }, () => 256) }],
  ['a number is negative', { vmpl: -1 }],
  ['a number has more bits than its field', { guest_svn: 2 ** 32 }],
  ['a number is not whole', { version: 3.5 }],
  ['a number has lost bits', { policy: 2 ** 60 }],
  ['a TCB has no levels', { reported_tcb: {} }],
  ['a level is more than a byte', { reported_tcb: { bootloader: 256, tee: 0, snp: 0, microcode: 0 } }],
  ['there is no signature', { signature: undefined }],
  ['the signature is too short', { signature: { r: [1], s: [1] } }],
  ['nothing is said of the key', { key_info: undefined }],
]

for (const [what, change] of wrong) {
  test(`JSON of a report is refused when ${what}`, (t) => {
    const attestation_report = { ...COCO.attestation_report, ...change }
    t.throws(() => parseSnpEvidence({ attestation_report }), { code: 'ERR_SNP_EVIDENCE' })
  })
}

test('what is no evidence at all is refused', (t) => {
  for (const value of [
    null,
    undefined,
    3,
    [],
    {},
    '',
    '{',
    '[]',
    '{"attestation_report":null}',
    new Uint8Array(),
    '{}',
  ]) {
    t.throws(() => parseSnpEvidence(value), { instanceOf: MalformedError })
  }
  t.throws(() => parseSnpEvidence(`{"a":"${'x'.repeat(2 ** 20)}"}`), { code: 'ERR_SNP_EVIDENCE' })
  t.throws(() => parseSnpEvidence(Uint8Array.of(0x7b, 0xff)), { code: 'ERR_SNP_EVIDENCE' })
  const cert_chain = Array.from({ length: 17 }, () => ({ cert_type: 'VCEK', data: [] }))
  t.throws(() => parseSnpEvidence({ ...COCO, cert_chain }), { code: 'ERR_SNP_EVIDENCE' })
})
