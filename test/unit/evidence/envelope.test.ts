import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { STRICT_POLICY } from '#attestation/appraisal/policy'
import { NO_COLLATERAL } from '#attestation/evidence/collateral'
import { detectEvidence } from '#attestation/evidence/detect'
import { openEnvelope } from '#attestation/evidence/envelope'
import { type JudgedEvidence, verifyEvidence } from '#attestation/evidence/verify-evidence'
import { MalformedError } from '#protocol/errors'
import { refusesOrKeeps } from '../parser-property.ts'

const snp = readFileSync('test/vectors/snp/trustee/attestation-service/tests/e2e/evidence.json', 'utf8').trim()
const template = readFileSync('test/vectors/snp/trustee/attestation-service/tests/e2e/request.json.template', 'utf8')
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const judge = (text: string): Promise<JudgedEvidence> =>
  verifyEvidence({
    evidence: bytesOf(text),
    tee: 'snp',
    collateral: NO_COLLATERAL,
    policy: STRICT_POLICY,
    at: new Date('2025-08-01'),
    nonce: undefined,
  })

const messages: readonly [name: string, text: string, envelope: string][] = [
  ['an attestation with evidence as a value', `{"tee-pubkey":{},"tee-evidence":${snp}}`, 'kbs-attestation'],
  ['an attestation with evidence as a string', JSON.stringify({ 'tee-evidence': snp }), 'kbs-attestation'],
  [
    'an attestation with primary and additional evidence',
    `{"runtime-data":{},"tee-evidence":{"primary_evidence":${snp},"additional_evidence":""}}`,
    'kbs-attestation',
  ],
  ['primary evidence alone', `{"primary_evidence":${snp},"additional_evidence":""}`, 'kbs-attestation'],
  [
    'the attestation service’s own request',
    template.replace('%TEE_NAME%', 'snp').replace('%EVIDENCE%', Buffer.from(snp).toString('base64url')),
    'attestation-service-request',
  ],
]
for (const [name, text, envelope] of messages) {
  test(`evidence inside of ${name} is judged as the evidence alone`, async (t) => {
    const { format, ...verdict } = await judge(text)
    const { format: plain, ...expected } = await judge(snp)
    t.deepEqual(format, { ...plain, encoding: 'json', envelope } as typeof format)
    t.deepEqual(verdict, expected)
  })
}

test('numbers of 64 bits inside of a message keep all their digits', (t) => {
  const { input } = openEnvelope(detectEvidence(bytesOf('{"tee-evidence":{"a":[18446744073709551615,1.5,-3]}}')).input)
  t.is(input.form === 'json' ? input.text : '', '{"a":[18446744073709551615,1.5,-3]}')
})

const refused: readonly [name: string, text: string][] = [
  ['no evidence', '{"tee-evidence":null,"primary_evidence":null}'],
  ['a number for evidence', '{"tee-evidence":1}'],
  ['text that is not JSON', '{"tee-evidence":"hello"}'],
  ['no verification request', '{"verification_requests":[]}'],
  ['two verification requests', `{"verification_requests":[{"evidence":${snp}},{"evidence":${snp}}]}`],
  ['a request without evidence', '{"verification_requests":[{"tee":"snp"}]}'],
]
for (const [name, text] of refused) {
  test(`a message with ${name} is refused`, async (t) => {
    await t.throwsAsync(judge(text), { instanceOf: MalformedError })
  })
}

test('whatever a message holds, it is opened or refused', (t) => {
  const key = fc.constantFrom('tee-evidence', 'primary_evidence', 'verification_requests', 'evidence')
  const document = fc.dictionary(key, fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.constant(snp)))
  refusesOrKeeps(t, document, (value) => openEnvelope(detectEvidence(bytesOf(JSON.stringify(value))).input))
})
