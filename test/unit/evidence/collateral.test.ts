import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { type Collateral, mergeCollateral, readCollateral } from '#attestation/evidence/collateral'
import { loadCollateral } from '#attestation/evidence/collateral-folder'
import { encodePem } from '#attestation/x509/pem'
import { MalformedError, UsageError } from '#protocol/errors'
import { CA, issueCertificate, issueCrl, newKey } from '../../fixtures/x509/issue.ts'
import { refusesOrKeeps } from '../parser-property.ts'

const TDX = 'test/vectors/tdx'
const { publicKey, privateKey } = newKey()
const root = { name: 'root', key: privateKey }
const certificate = issueCertificate({ subject: 'root', key: publicKey, issuer: root, extensions: [CA] })
const crl = issueCrl({ issuer: root })
const pem = encodePem({ label: 'CERTIFICATE', bytes: certificate })
const pemCrl = encodePem({ label: 'X509 CRL', bytes: crl })

const read = (content: string | Uint8Array, name = 'file'): Collateral =>
  readCollateral([{ name, bytes: typeof content === 'string' ? Buffer.from(content) : content }])
const counts = ({ certificates, crls, documents, ignored }: Collateral): number[] =>
  [certificates, crls, documents, ignored].map(({ length }) => length)

/** One entry of GUID (a VCEK's), offset and length, an entry of zeros, the certificate. */
function hostTable(entry: Uint8Array): Uint8Array {
  const head = Buffer.alloc(48)
  head.write('63da758de6644564adc5f4b93be8accd', 'hex')
  head.writeUInt32LE(48, 16)
  head.writeUInt32LE(entry.length, 20)
  return Buffer.concat([head, entry])
}

const forms: readonly [form: string, content: string | Uint8Array, counts: number[]][] = [
  ['PEM', pem, [1, 0, 0, 0]],
  ['a PEM chain with a list and text between', `# root\n${pem}\r\nsubject=…\n${pemCrl}`, [1, 1, 0, 0]],
  ['URL-encoded PEM', encodeURIComponent(pem), [1, 0, 0, 0]],
  ['DER of a certificate', certificate, [1, 0, 0, 0]],
  ['DER of a list', crl, [0, 1, 0, 0]],
  ['DER of several, one behind the other', Buffer.concat([certificate, crl]), [1, 1, 0, 0]],
  ['hexadecimal DER', `${Buffer.from(crl).toString('hex')}\n`, [0, 1, 0, 0]],
  [
    'base64 DER in lines',
    Buffer.from(certificate)
      .toString('base64')
      .replace(/(.{64})/g, '$1\n'),
    [1, 0, 0, 0],
  ],
  ['JSON that holds PEM', JSON.stringify({ a: { chain: pem + pem } }), [1, 0, 1, 0]],
  ['JSON that holds URL-encoded PEM', JSON.stringify({ chain: encodeURIComponent(pem) }), [1, 0, 1, 0]],
  ['JSON that holds hexadecimal DER', JSON.stringify({ root_ca_crl: Buffer.from(crl).toString('hex') }), [0, 1, 1, 0]],
  ['JSON that holds DER as numbers', JSON.stringify({ cert_chain: [{ data: [...certificate] }] }), [1, 0, 1, 0]],
  ['JSON with a byte order mark', '\uFEFF{"tcbInfo":{}}', [0, 0, 1, 0]],
  [
    'a response of Intel’s service with its headers',
    `HTTP/1.1 200 OK\r\nTCB-Info-Issuer-Chain: ${encodeURIComponent(pem)}\r\n\r\n{"tcbInfo":{}}`,
    [1, 0, 1, 0],
  ],
  ['the table of certificates of an SNP host', hostTable(certificate), [1, 0, 0, 0]],
  ['a private key', encodePem({ label: 'PRIVATE KEY', bytes: Uint8Array.of(1) }), [0, 0, 0, 1]],
  ['a PEM file that was cut', pem.slice(0, -20), [0, 0, 0, 1]],
  ['a certificate that was cut', certificate.slice(0, -1), [0, 0, 0, 1]],
  ['one good and one bad PEM block', `${encodePem({ label: 'CERTIFICATE', bytes: crl })}${pem}`, [1, 0, 0, 1]],
  ['something else', 'hello', [0, 0, 0, 1]],
  ['an empty file', '', [0, 0, 0, 1]],
  ['broken JSON', '{"tcbInfo":', [0, 0, 0, 1]],
]
for (const [form, content, expected] of forms) {
  test(`collateral: ${form} is recognised for what it is`, (t) => {
    t.deepEqual(counts(read(content)), expected)
  })
}

test('dcap-qvl’s and Intel’s collateral is read as it was published', (t) => {
  const dcap = read(readFileSync(`${TDX}/dcap-qvl/sample/tdx_quote_collateral.json`))
  t.deepEqual(counts(dcap), [3, 2, 1, 0])
  const intel = loadCollateral(`${TDX}/intel-qvl/sampleData`)
  t.deepEqual(counts(intel), [4, 2, 3, 1])
  t.deepEqual(intel.ignored, [{ name: 'quote.dat', why: 'neither DER, text, nor a table of certificates' }])
})

test('a document keeps its text byte for byte, because parts of it are signed', (t) => {
  const text = '{ "tcbInfo" : {"a":1.0}, "signature":"00" }'
  t.deepEqual(read(`\n${text}\n`).documents, [{ name: 'file', text }])
})

test('the same certificate in two files is one', (t) => {
  const merged = mergeCollateral(read(pem, 'a'), read(certificate, 'b'), read(pemCrl, 'c'))
  t.deepEqual(counts(merged), [1, 1, 0, 0])
})

test('a folder is read with its folders, whatever its files are called', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'collateral-'))
  try {
    mkdirSync(join(folder, 'deeper'))
    writeFileSync(join(folder, 'x'), pem)
    writeFileSync(join(folder, 'deeper', 'y.txt'), crl)
    symlinkSync('nowhere', join(folder, 'broken'))
    t.deepEqual(counts(loadCollateral(folder)), [1, 1, 0, 0])
    t.deepEqual(counts(loadCollateral(join(folder, 'x'))), [1, 0, 0, 0])
    t.throws(() => loadCollateral(join(folder, 'missing')), { instanceOf: UsageError, code: 'ERR_FILE_UNREADABLE' })
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('more files than collateral ever has are refused', (t) => {
  const files = Array.from({ length: 513 }, (_, index) => ({ name: String(index), bytes: new Uint8Array() }))
  t.throws(() => readCollateral(files), { instanceOf: MalformedError, code: 'ERR_COLLATERAL' })
})

test('deeply nested and very long JSON is read without its depths', (t) => {
  t.deepEqual(counts(read(`{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`)), [0, 0, 1, 0])
  t.deepEqual(counts(read(JSON.stringify({ a: Array.from({ length: 6000 }, () => 'x'.repeat(70)) }))), [0, 0, 1, 0])
})

test('whatever a collateral file holds, it is read or reported', (t) => {
  const pieces = fc.array(fc.oneof(fc.constant(pem), fc.constant(pemCrl), fc.string({ maxLength: 20 }), fc.json()), {
    maxLength: 4,
  })
  const bytes = fc.oneof(
    pieces.map((texts) => new Uint8Array(Buffer.from(texts.join('')))),
    fc.uint8Array({ maxLength: 80 }),
    fc
      .tuple(fc.nat(certificate.length), fc.nat(255))
      .map(([at, byte]) => new Uint8Array(Buffer.concat([certificate])).fill(byte, at, at + 1)),
  )
  refusesOrKeeps(
    t,
    bytes,
    (input) => readCollateral([{ name: 'x', bytes: input }]),
    (collateral) => counts(collateral).some((count) => count > 0),
  )
})
