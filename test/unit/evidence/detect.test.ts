import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { type DetectedEvidence, detectEvidence } from '#attestation/evidence/detect'
import { encodePem } from '#attestation/x509/pem'
import { MalformedError } from '#protocol/errors'
import { refusesOrKeeps } from '../parser-property.ts'

const report = new Uint8Array(readFileSync('test/vectors/snp/go-sev-guest/verify/testdata/attestation.bin'))
const json = readFileSync('test/vectors/snp/trustee/attestation-service/tests/e2e/evidence.json', 'utf8')
const detect = (content: string | Uint8Array): DetectedEvidence =>
  detectEvidence(typeof content === 'string' ? new Uint8Array(Buffer.from(content)) : content)
const base64 = Buffer.from(report).toString('base64')
const hex = Buffer.from(report).toString('hex')

const forms: readonly [form: string, content: string | Uint8Array, encoding: DetectedEvidence['encoding']][] = [
  ['raw bytes', report, 'raw'],
  ['hexadecimal', hex, 'hex'],
  ['hexadecimal with 0x, in upper case, in lines', `0x${hex.toUpperCase().replace(/(.{32})/g, '$1\n')}`, 'hex'],
  ['base64', `${base64}\n`, 'base64'],
  ['base64 in lines', base64.replace(/(.{76})/g, '$1\r\n'), 'base64'],
  ['base64url', Buffer.from(report).toString('base64url'), 'base64url'],
  ['one PEM-like block', encodePem({ label: 'SNP REPORT', bytes: report }), 'pem'],
  ['an array of numbers', JSON.stringify([...report]), 'json'],
  ['a JSON string of base64', JSON.stringify(base64), 'json'],
]
for (const [form, content, encoding] of forms) {
  test(`evidence that is ${form} is detected, and said to be so`, (t) => {
    t.deepEqual(detect(content), { encoding, input: { form: 'bytes', bytes: report } })
  })
}

test('evidence JSON is detected, also in base64', (t) => {
  const value: unknown = JSON.parse(json)
  t.deepEqual(detect(json), { encoding: 'json', input: { form: 'json', value, text: json.trim() } })
  t.is(detect(Buffer.from(json).toString('base64')).encoding, 'base64')
  t.is(detect(Buffer.from(json).toString('base64')).input.form, 'json')
})

const refused: readonly [what: string, content: string | Uint8Array][] = [
  ['an empty file', ''],
  ['text', 'this is no evidence!'],
  ['broken JSON', '{"quote":'],
  ['a certificate', encodePem({ label: 'CERTIFICATE', bytes: report })],
  ['two PEM blocks', encodePem({ label: 'QUOTE', bytes: report }).repeat(2)],
  ['base64 with stray bits at its end', 'AB=='],
  ['strings within strings', JSON.stringify(JSON.stringify(JSON.stringify('AA==')))],
  ['more bytes than evidence ever has', new Uint8Array(16_777_217)],
]
for (const [what, content] of refused) {
  test(`${what} is no evidence`, (t) => {
    t.throws(() => detect(content), { instanceOf: MalformedError, code: 'ERR_EVIDENCE' })
  })
}

test('whatever bytes come as evidence, they are taken or refused', (t) => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc.json().map((text) => new Uint8Array(Buffer.from(text))),
    fc.string().map((text) => new Uint8Array(Buffer.from(text))),
    fc.uint8Array().map((content) => new Uint8Array(Buffer.from(Buffer.from(content).toString('base64')))),
  )
  refusesOrKeeps(t, bytes, detectEvidence, ({ input }) => input.form === 'json' || input.bytes.length >= 0)
})
