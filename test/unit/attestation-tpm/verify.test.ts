import { createSign, generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import { credentialProof } from '#attestation/tpm/credential-proof'
import { EK_TEMPLATES } from '#attestation/tpm/ek-template'
import { responseText } from '#attestation/tpm/guest/response-codes'
import { type EccPublicArea, encodePublicArea, parsePublicArea } from '#attestation/tpm/parse/public-area'
import { verifyAttestationKey } from '#attestation/tpm/verify/attestation-key'
import { eccSeed, sealCredential } from '#attestation/tpm/verify/make-credential'
import { subjectPublicKeyInfo } from '#attestation/tpm/verify/public-key'
import { verifyQuote, verifyQuoteSignature } from '#attestation/tpm/verify/quote'
import { parseCertificate } from '#attestation/x509/certificate'
import { MalformedError, UnverifiedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'))
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const AK = hex(
  '0023000b00050472000000100018000b000300100020fb5f7e25c28fb4a357574e44fb2d17577fd94512a3baa29468d7a5909f3ca3640020c267d821b241ea8a5220e303707ef631aeb22f36c2e25ef57483cf2d2f85c6c0',
)
const QUOTE = hex(
  'ff54434780180022000b801901f53f4761580c1d81067ed5e5e639a109ab0be69d4a1c7a491650b453c4002063dadf58b3a69693c8fac7605cb8dad5a7651acf00787b9492d1d339084e0827000000000004807c000000060000000001201910230016363600000001000b0301010000202d5ea31f70d640e790d2278c59a277cabedb5b5931bb4564b217773812cf3924',
)
const SIGNATURE = hex(
  '0018000b002012a73175d9eedd92c0866d88ce8b1302bc2aedfe4188d66e08f4d48af94ac07a0020454798500e1f3f224c23257fac75e5bd3bbbd32bf753cfb8a7899ce928dae008',
)
const PCR8 = hex('12db50484c569ef2d5446a9790ee2be42a913d1c755cde998469926762f54066')

test('a captured quote passes as a whole', (t) => {
  const { pcrs, attest } = verifyQuote({
    key: verifyAttestationKey(AK),
    message: QUOTE,
    signature: SIGNATURE,
    qualifyingData: hex('63dadf58b3a69693c8fac7605cb8dad5a7651acf00787b9492d1d339084e0827'),
    selection: { bank: 'sha256', pcrs: [0, 8] },
    pcrs: [new Uint8Array(32), ...Array.from({ length: 7 }, () => undefined), PCR8],
  })
  t.deepEqual([...pcrs.keys()], [0, 8])
  t.is(attest.resetCount, 6)
})

test('quotes of Azure machines verify under the keys that their reports name', (t) => {
  for (const [quote, report] of [
    ['az-snp-vtpm/tpm-quote-v1.json', 'az-snp-vtpm/hcl-report.bin'],
    ['az-tdx-vtpm/tpm-quote-v1.json', 'az-tdx-vtpm/hcl-report.bin'],
  ] as const) {
    const read = (path: string) => readFileSync(new URL(`../../vectors/tpm/trustee/${path}`, import.meta.url))
    const json: Record<'message' | 'signature', unknown> = JSON.parse(read(quote).toString('utf8'))
    const runtime = read(report).toString('latin1')
    const keys = JSON.parse(runtime.slice(runtime.indexOf('{"keys"'), runtime.lastIndexOf('}') + 1)).keys
    const ak = keys.find((key: { kid: string }) => key.kid === 'HCLAkPub')
    const area = parsePublicArea(hex(`0001000b00050072000000100014000b0800000000000100${'00'.repeat(256)}`))
    t.is(area.type, 'rsa')
    if (area.type !== 'rsa') return
    const key = { ...area, modulus: new Uint8Array(Buffer.from(ak.n, 'base64url')) }
    const message = bytesOf(json.message)
    const raw = bytesOf(json.signature)
    const signature = raw.length === 256 ? Buffer.concat([hex('0014000b0100'), raw]) : raw
    t.notThrows(() => verifyQuoteSignature(key, message, signature), quote)
    message[40] = (message[40] ?? 0) ^ 1
    t.throws(() => verifyQuoteSignature(key, message, signature), { code: 'ERR_QUOTE_SIGNATURE' })
  }
})

function bytesOf(value: unknown): Uint8Array {
  if (Array.isArray(value)) return Uint8Array.from(value)
  return new Uint8Array(Buffer.from(String(value), /^[0-9a-f]+$/.test(String(value)) ? 'hex' : 'base64'))
}

test('RSA quotes verify with either padding, and with no other', (t) => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const modulus = Buffer.from(publicKey.export({ format: 'jwk' }).n ?? '', 'base64url')
  const areaOf = (scheme: string) =>
    parsePublicArea(Buffer.concat([hex(`0001000b0005007200000010${scheme}0800000000000100`), modulus]))
  const area = areaOf('0010')
  const data = Buffer.from('quoted')
  const pkcs1 = createSign('sha256').update(data).sign(privateKey)
  const pss = createSign('sha256').update(data).sign({ key: privateKey, padding: 6, saltLength: 32 })
  const longestSalt = createSign('sha256').update(data).sign({ key: privateKey, padding: 6, saltLength: 222 })
  t.notThrows(() => verifyQuoteSignature(area, data, Buffer.concat([hex('0014000b0100'), pkcs1])))
  for (const salted of [pss, longestSalt]) {
    t.notThrows(() => verifyQuoteSignature(area, data, Buffer.concat([hex('0016000b0100'), salted])))
    t.notThrows(() => verifyQuoteSignature(areaOf('0016000b'), data, Buffer.concat([hex('0016000b0100'), salted])))
    t.throws(() => verifyQuoteSignature(areaOf('0014000b'), data, Buffer.concat([hex('0016000b0100'), salted])))
  }
  t.throws(() => verifyQuoteSignature(areaOf('0014000c'), data, Buffer.concat([hex('0014000b0100'), pkcs1])))
  for (const wrong of [
    Buffer.concat([hex('0016000b0100'), pkcs1]),
    Buffer.concat([hex('0014000b0100'), pss]),
    Buffer.concat([hex('0014000c0100'), pkcs1]),
    SIGNATURE,
  ]) {
    t.throws(() => verifyQuoteSignature(area, data, wrong), {
      instanceOf: UnverifiedError,
      code: 'ERR_QUOTE_SIGNATURE',
    })
  }
})

const unsuitable: readonly [name: string, change: (area: EccPublicArea) => EccPublicArea][] = [
  ['that the TPM did not make itself', (area) => ({ ...area, attributes: area.attributes & ~0x20 })],
  ['that may leave the TPM', (area) => ({ ...area, attributes: area.attributes & ~0x2 })],
  ['that may be re-parented', (area) => ({ ...area, attributes: area.attributes & ~0x10 })],
  ['that is not restricted', (area) => ({ ...area, attributes: area.attributes & ~0x10000 })],
  ['that does not sign', (area) => ({ ...area, attributes: area.attributes & ~0x40000 })],
  ['that also decrypts', (area) => ({ ...area, attributes: area.attributes | 0x20000 })],
  ['with a reserved attribute', (area) => ({ ...area, attributes: area.attributes | 0x80000 })],
  ['with the highest attribute bit', (area) => ({ ...area, attributes: area.attributes | 0x80000000 })],
  ['of P-384', (area) => ({ ...area, curve: 'P-384' })],
  ['that signs with SHA-1', (area) => ({ ...area, scheme: { algorithm: 0x18, hash: 'sha1' } })],
  ['without a scheme', (area) => ({ ...area, scheme: null })],
  ['named by SHA-384', (area) => ({ ...area, nameAlgorithm: 'sha384' })],
  ['with a policy', (area) => ({ ...area, authPolicy: new Uint8Array(32) })],
  ['with a symmetric algorithm', (area) => ({ ...area, symmetric: { algorithm: 6, keyBits: 128, mode: 0x43 } })],
  ['with a key derivation', (area) => ({ ...area, kdf: { algorithm: 0x18, hash: 'sha256' } })],
  ['with coordinates longer than the field', (area) => ({ ...area, x: new Uint8Array(33) })],
]
for (const [name, change] of unsuitable) {
  test(`an attestation key ${name} is refused`, (t) => {
    const area = parsePublicArea(AK)
    if (area.type !== 'ecc') return t.fail()
    t.throws(() => verifyAttestationKey(encodePublicArea(change(area))), {
      instanceOf: UnverifiedError,
      code: 'ERR_AK_UNSUITABLE',
    })
  })
}

test('an RSA key is not taken as attestation key', (t) => {
  const rsa = hex(`0001000b00050072000000100014000b0800000000000100${'ab'.repeat(256)}`)
  t.throws(() => verifyAttestationKey(rsa), { code: 'ERR_AK_UNSUITABLE' })
})

test('noDA is optional', (t) => {
  const area = parsePublicArea(AK)
  t.notThrows(() => verifyAttestationKey(encodePublicArea({ ...area, attributes: 0x50072 })))
})

test('a point off the curve is no key', (t) => {
  const area = parsePublicArea(AK)
  if (area.type !== 'ecc') return t.fail()
  t.throws(() => subjectPublicKeyInfo({ ...area, x: area.y }), { instanceOf: MalformedError, code: 'ERR_TPM_PUBLIC' })
})

test('a credential for a P-256 key has the bytes of the known answer', (t) => {
  const template = EK_TEMPLATES['p-256'].creation
  if (template.type !== 'ecc') return t.fail()
  const ek = {
    ...template,
    x: hex('6d71c836d9f237406412341e4610d2c7d07df300d939c6ca04afa00f296e8bf9'),
    y: hex('af6328af7b672263207263cc1bd60159a20ee7b966ec95e57e65130b79a4acdd'),
  }
  const { seed, encryptedSecret } = eccSeed(
    ek,
    Uint8Array.from({ length: 32 }, (_, index) => index + 1),
  )
  t.is(text(seed), '4778b071268b5d33b0b40ecc958a0f02fea72f663788af58a4b64c92b0dcac86')
  t.is(
    text(encryptedSecret),
    '0020515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f00204536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354',
  )
  const blob = sealCredential({
    hash: 'sha256',
    symmetricBits: 128,
    seed,
    akName: hex('000b8b256b61dcc1d8e0faaad51d61f00e5ec3207f4a8daf47ea1fd3ef1df6ffb398'),
    secret: hex('00112233445566778899aabbccddeeff'.repeat(2)),
  })
  t.is(
    text(blob),
    '00207ae2968336e3f4482dd2697fec4fbc5d4dc9f48397b93f6d3de8fd750b88e080f3adc8aa8e61681b6637e4c01791ce6a10060ef8be51d58272ec70a2b879dbb0dee7',
  )
})

test('a credential from a known seed has the bytes of the known answers for RSA and P-384', (t) => {
  const rsa = sealCredential({
    hash: 'sha256',
    symmetricBits: 128,
    seed: hex('c530f4c1dd9e8ebd00fe7778df276020f71f3ae6566b40a63e01a0772df701ae'),
    akName: hex('000b8b256b61dcc1d8e0faaad51d61f00e5ec3207f4a8daf47ea1fd3ef1df6ffb398'),
    secret: hex('00112233445566778899aabbccddeeff'.repeat(2)),
  })
  t.is(
    text(rsa),
    '002093eb1dec206c609064a3a9669c549597277af80f418245dd0171bdba1638a8dc93b39f7f2afcab45f85d066bbc5401666b6a9abb4fc1c1c653ce4d2e64c6d39434c7',
  )
  const p384 = sealCredential({
    hash: 'sha384',
    symmetricBits: 256,
    seed: hex('4f78b41d57389be5a42d8eafb9ebcacc817517662de0890affca897d6e219e2b415cfbb0f23148703b43332ef03ac4b7'),
    akName: hex('000bd5442707c4544c6aa87f1534cf4c8caf80f4db7626404520bb8a1e2b795c255f'),
    secret: hex('7804446b8842ab8b54177da88f3ff0f661ee8bd91be80968194fcb25b0e44842'),
  })
  t.is(
    text(p384),
    '0030ee4f442e241c1245460a1ad1d941205deb56f6e0deb0c22ec335bf826a3224b09ad51df0371d4ec13ebf1d977c189d5f33e4dbe482d9cda9c2101e34e26fd5ba4f029987b774e9ded526be3e072bb59cc099',
  )
})

test('the credential’s proof is the HMAC of RFC 4231, test case 2', (t) => {
  const data = new TextEncoder().encode('what do ya want for nothing?')
  t.is(
    text(credentialProof(nodeCrypto, new TextEncoder().encode('Jefe'), data)),
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  )
})

test('certificates of other TPM keys are read with their usages', (t) => {
  const path = '../../vectors/tpm/go-tpm-tools/internal/test/certificates/'
  for (const [name, usage] of [
    ['uca_tpm_ecc_sign_cert.pem', 'digitalSignature'],
    ['uca_tpm_rsa_sign_cert.pem', 'digitalSignature'],
    ['uca_tpm_rsa_enc_cert.pem', 'keyEncipherment'],
  ] as const) {
    const certificate = parseCertificate(readFileSync(new URL(path + name, import.meta.url), 'utf8'))
    t.true(certificate.keyUsage?.has(usage) ?? false, name)
    t.not(certificate.basicConstraints?.ca, true)
  }
})

test('what is no certificate, or has bytes behind it, is malformed', (t) => {
  t.throws(() => parseCertificate(new Uint8Array(10)), { instanceOf: MalformedError, code: 'ERR_CERTIFICATE' })
  const path = '../../vectors/tpm/go-tpm-tools/internal/test/certificates/uca_tpm_ecc_sign_cert.pem'
  const { der } = parseCertificate(readFileSync(new URL(path, import.meta.url), 'utf8'))
  t.throws(() => parseCertificate(Buffer.concat([der, Buffer.from([0])])), { instanceOf: MalformedError })
})

test('response codes are told in words', (t) => {
  t.is(responseText(0x1df), 'integrity check failed, parameter 1: TPM response 0x1df')
  t.is(responseText(0xa9d), 'policy not satisfied, session 2: TPM response 0xa9d')
  t.is(responseText(0x18b), 'handle of the wrong kind, handle 1: TPM response 0x18b')
  t.is(responseText(0x921), 'locked out after too many wrong authorizations: TPM response 0x921')
  t.regex(responseText(0x0b0143), /not known to this TPM.*resource manager/)
})
