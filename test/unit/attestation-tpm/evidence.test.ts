/**
 * TPM evidence in files: every shape, and what is made of keys, certificates, nonces and PCR values. The quotes are signed here, by
 * keys that this test holds; test/component/attestation-tpm/quotes.test.ts judges those of a TPM.
 */
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { NO_COLLATERAL } from '#attestation/evidence/collateral'
import type { AppraisalContext } from '#attestation/evidence/context'
import { type EvidenceVerdict, verdictOf } from '#attestation/evidence/verdict'
import { appraiseTpm } from '#attestation/tpm/appraise-evidence'
import { appraiseEventLog } from '#attestation/tpm/appraise-log'
import { parseEventLog } from '#attestation/tpm/parse/event-log'
import { parseTpmEvidence } from '#attestation/tpm/parse/evidence'
import { sized, u8, u16, u32 } from '#attestation/tpm/parse/marshal'
import { encodePcrSelections } from '#attestation/tpm/parse/pcr-selection'
import { parsePcrFile } from '#attestation/tpm/parse/pcr-values'
import { parseQuoteKey } from '#attestation/tpm/parse/quote-key'
import { parseQuoteSignature } from '#attestation/tpm/parse/signature'
import { isSoftwareTpm, parseTpmIdentity } from '#attestation/tpm/parse/tpm-identity'
import { type ParsedCertificate, parseCertificate } from '#attestation/x509/certificate'
import { parseCrl } from '#attestation/x509/crl'
import type { JsonObject, JsonValue } from '#protocol/canonical-json'
import type { HashAlgorithm } from '#protocol/crypto-provider'
import { concatBytes, toBase64, toHex } from '#protocol/encoding'
import { MalformedError } from '#protocol/errors'
import { nodeCrypto } from '#protocol/node/crypto'
import { replayAdmittedImages } from '#protocol/tpm-messages'
import { der, objectId, octets, sequence, set, text } from '#test/fixtures/x509/encode-der'
import { CA, CA_USAGE, type Extension, issueCertificate, issueCrl, newKey } from '#test/fixtures/x509/issue'
import { altered, refusesOrKeeps } from '../parser-property.ts'

const AT = new Date('2025-01-01T00:00:00Z')
const NONCE = new Uint8Array(32).fill(7)
const ak = newKey()
const spki = new Uint8Array(ak.publicKey.export({ format: 'der', type: 'spki' }))

type Selections = readonly { readonly bank: HashAlgorithm; readonly pcrs: readonly number[] }[]
const value = (bank: HashAlgorithm, pcr: number): Uint8Array =>
  new Uint8Array(createHash(bank).update(`${bank} ${pcr}`).digest())

interface QuoteOptions {
  readonly selections?: Selections
  readonly nonce?: Uint8Array
  readonly key?: KeyObject
  readonly hash?: HashAlgorithm
  readonly values?: (bank: HashAlgorithm, pcr: number) => Uint8Array
}

/** TPMS_ATTEST, and the signature in both forms. */
function quote(options: QuoteOptions = {}): { message: Uint8Array; tss: Uint8Array; plain: Uint8Array } {
  const { selections = [{ bank: 'sha256', pcrs: [0, 1, 7] }], nonce = NONCE, key = ak.privateKey } = options
  const { hash = 'sha256', values = value } = options
  const digest = createHash(hash)
  for (const { bank, pcrs } of selections) for (const pcr of pcrs) digest.update(values(bank, pcr))
  const message = concatBytes(
    ...[u32(0xff544347), u16(0x8018), sized(new Uint8Array(34)), sized(nonce)],
    ...[new Uint8Array(8), u32(3), u32(1), u8(1), new Uint8Array(8).fill(2), encodePcrSelections(selections)],
    sized(digest.digest()),
  )
  const p1363 = new Uint8Array(sign(hash, message, { key, dsaEncoding: 'ieee-p1363' }))
  const id = { sha1: 4, sha256: 0xb, sha384: 0xc, sha512: 0xd }[hash]
  const half = p1363.length / 2
  return {
    message,
    tss: concatBytes(u16(0x18), u16(id), sized(p1363.slice(0, half)), sized(p1363.slice(half))),
    plain: new Uint8Array(sign(hash, message, key)),
  }
}

function evidence(options: QuoteOptions = {}): Record<string, JsonValue> {
  const { message, tss } = quote(options)
  const { selections = [{ bank: 'sha256', pcrs: [0, 1, 7] }], values = value } = options
  return {
    message: toBase64(message),
    signature: toBase64(tss),
    public_key: toBase64(spki),
    pcrs: Object.fromEntries(
      selections.map(({ bank, pcrs }) => [
        bank,
        Object.fromEntries(pcrs.map((pcr) => [pcr, toHex(values(bank, pcr))])),
      ]),
    ),
  }
}

function judge(document: JsonValue, context: Partial<AppraisalContext> = {}): EvidenceVerdict {
  return verdictOf(
    appraiseTpm(parseTpmEvidence(document), {
      at: AT,
      nonce: NONCE,
      collateral: NO_COLLATERAL,
      anchors: [],
      ...context,
    }),
  )
}

const codes = ({ reasons }: EvidenceVerdict): string[] => reasons.map(({ code }) => code)

test('a good quote by a key that nobody vouches for is a warning, and says what it claims', (t) => {
  const verdict = judge(evidence())
  t.is(verdict.verdict, 'warning')
  t.deepEqual(codes(verdict), ['ak_unbound'])
  t.like(verdict.claims, {
    report_data: toHex(NONCE),
    firmware_version: '0202020202020202',
    reset_count: 3,
    restart_count: 1,
    safe: true,
    ak_bound: false,
    ak: createHash('sha256').update(spki).digest('hex'),
    pcr_selection: ['sha256:0,1,7'],
  })
  t.deepEqual(verdict.claims.pcrs, {
    sha256: { 0: toHex(value('sha256', 0)), 1: toHex(value('sha256', 1)), 7: toHex(value('sha256', 7)) },
  })
})

// ---- shapes

const banks: Selections = [
  { bank: 'sha1', pcrs: [0, 23] },
  { bank: 'sha384', pcrs: [4] },
]

/** As tpm2-tools lay out TPML_PCR_SELECTION and TPML_DIGEST in memory. */
function serialized(selections: Selections, rest = 0): Uint8Array {
  const le = (number: number, bytes: number): Uint8Array =>
    Uint8Array.from({ length: bytes }, (_, index) => (number >>> (8 * index)) & 0xff)
  const slots = Array.from({ length: 16 }, (_, index) => {
    const selection = selections[index]
    if (selection === undefined) return new Uint8Array(8).fill(rest)
    const encoded = encodePcrSelections([selection])
    return concatBytes(Uint8Array.of(encoded[5] ?? 0, encoded[4] ?? 0, 3), encoded.slice(7), new Uint8Array(2))
  })
  const digests = selections.flatMap(({ bank, pcrs }) => pcrs.map((pcr) => value(bank, pcr)))
  const list = concatBytes(
    le(digests.length, 4),
    ...Array.from({ length: 8 }, (_, index) => {
      const field = new Uint8Array(66).fill(rest)
      const digest = digests[index]
      if (digest !== undefined) field.set(concatBytes(le(digest.length, 2), digest))
      return field
    }),
  )
  return concatBytes(le(selections.length, 4), ...slots, le(1, 4), list)
}

test('PCR values are read in each format that the tools write, and in JSON by bank and number', (t) => {
  const digests = banks.flatMap(({ bank, pcrs }) => pcrs.map((pcr) => value(bank, pcr)))
  const marshaled = concatBytes(
    encodePcrSelections(banks),
    u32(1),
    u32(digests.length),
    ...digests.map((one) => sized(one)),
  )
  const good = evidence({ selections: banks })
  const forms: readonly JsonValue[] = [
    good.pcrs ?? null,
    toBase64(serialized(banks)),
    toBase64(serialized(banks, 0xee)),
    toHex(marshaled),
    toBase64(concatBytes(...digests)),
    { sha1: [toHex(value('sha1', 0)), toHex(value('sha1', 23))], sha384: [[...value('sha384', 4)]] },
  ]
  for (const pcrs of forms) {
    const verdict = judge({ ...good, pcrs })
    t.deepEqual(codes(verdict), ['ak_unbound'], JSON.stringify(pcrs).slice(0, 80))
    t.like(verdict.claims.pcrs, { sha384: { 4: toHex(value('sha384', 4)) } })
  }
})

test('PCR files that are cut, longer, or of other PCRs are refused or contradicted', (t) => {
  const file = serialized(banks)
  for (let length = 0; length < file.length; length += 3) {
    t.throws(() => parsePcrFile(file.slice(0, length), banks), { instanceOf: MalformedError }, `${length}`)
  }
  t.throws(() => parsePcrFile(concatBytes(file, Uint8Array.of(0)), banks), { instanceOf: MalformedError })
  const good = evidence({ selections: banks })
  const fewer: Selections = [{ bank: 'sha1', pcrs: [0, 23] }]
  t.deepEqual(codes(judge({ ...good, pcrs: toBase64(serialized(fewer)) })).slice(0, 1), ['pcr_digest_mismatch'])
  for (const pcrs of [
    { sha1: { 24: '' } },
    { sha1: { '00': '' } },
    { md5: {} },
    { sha1: { 0: '00' } },
    ['00'],
    7,
    'zz',
  ]) {
    t.throws(() => judge({ ...good, pcrs }), { instanceOf: MalformedError }, JSON.stringify(pcrs))
  }
})

test('values of PCRs that the quote does not cover are not claimed', (t) => {
  const good = evidence()
  const pcrs = { ...(good.pcrs as JsonObject), sha384: { 0: toHex(value('sha384', 0)) } }
  t.deepEqual(Object.keys(judge({ ...good, pcrs }).claims.pcrs as object), ['sha256'])
  const all = Array.from({ length: 24 }, (_, pcr) => toHex(value('sha256', pcr)))
  t.deepEqual(Object.keys((judge({ ...good, pcrs: all }).claims.pcrs as { sha256: object }).sha256), ['0', '1', '7'])
})

test('Confidential Containers’ evidence is read: report data padded to 64 bytes, key in DER', (t) => {
  const padded = concatBytes(NONCE, new Uint8Array(32))
  const { message, tss } = quote({
    nonce: padded,
    selections: [{ bank: 'sha256', pcrs: Array.from({ length: 24 }, (_, n) => n) }],
  })
  const document = {
    ak_public: toBase64(spki),
    report_data: toBase64(padded),
    tpm_quote: {
      message: toBase64(message),
      signature: toBase64(tss),
      pcrs: Array.from({ length: 24 }, (_, pcr) => toHex(value('sha256', pcr))),
    },
  }
  t.is(parseTpmEvidence(document).form, 'coco-tpm')
  t.deepEqual(codes(judge(document)), ['ak_unbound'])
  t.deepEqual(codes(judge(document, { nonce: padded })), ['ak_unbound'])
  t.true(codes(judge(document, { nonce: NONCE.slice(1) })).includes('nonce_mismatch'))
  t.true(codes(judge({ ...document, report_data: toBase64(NONCE) })).includes('report_data_mismatch'))
})

test('evidence with a quote for each bank is judged quote by quote', (t) => {
  const one = (bank: HashAlgorithm): JsonObject => {
    const { message, tss } = quote({ selections: [{ bank, pcrs: [0, 1] }] })
    return {
      attest_body: toBase64(message),
      attest_sig: toBase64(tss),
      pcrs: [toHex(value(bank, 0)), toHex(value(bank, 1))],
    }
  }
  const pem = String(ak.publicKey.export({ format: 'pem', type: 'spki' }))
  const document = {
    ak_pubkey: pem,
    ek_cert: null,
    quote: { SHA1: one('sha1'), SHA256: one('sha256') },
    eventlog: null,
  }
  const verdict = judge(document)
  t.deepEqual(Object.keys(verdict.claims.pcrs as object), ['sha1', 'sha256'])
  t.deepEqual(codes(verdict), ['weak_hash', 'ak_unbound'])
  t.throws(() => judge({ ...document, quote: {} }), { code: 'ERR_TPM_EVIDENCE' })
  t.throws(() => judge({ ...document, quote: { MD5: one('sha1') } }), { code: 'ERR_TPM_EVIDENCE' })
})

test('what our agent sends is judged from a file too, with its list of images', (t) => {
  const images = [
    {
      container: 'web',
      manifest: `sha256:${'a'.repeat(64)}`,
      config: `sha256:${'b'.repeat(64)}`,
      diff_ids: [`sha256:${'c'.repeat(64)}`],
    },
  ]
  const admitted = images.map(({ container, manifest, config, diff_ids }) => ({
    container,
    manifest,
    config,
    diffIds: diff_ids,
  }))
  const pcr15 = replayAdmittedImages(nodeCrypto, admitted)
  const values = (bank: HashAlgorithm, pcr: number): Uint8Array => (pcr === 15 ? pcr15 : value(bank, pcr))
  const { message, tss } = quote({ selections: [{ bank: 'sha256', pcrs: [0, 15] }], values })
  const pcrs = Array.from({ length: 24 }, (_, pcr) => (pcr === 0 || pcr === 15 ? toHex(values('sha256', pcr)) : ''))
  const document = {
    ak_public: toBase64(spki),
    tpm_quote: { message: toBase64(message), signature: toBase64(tss), pcrs },
    credential_secret: toBase64(new Uint8Array(32)),
    images,
  }
  t.is(parseTpmEvidence(document).form, 'caisson')
  t.deepEqual(codes(judge(document)), ['ak_unbound'])
  t.deepEqual(judge(document).claims.images, [{ container: 'web', manifest: `sha256:${'a'.repeat(64)}` }])
  t.deepEqual(codes(judge({ ...document, images: [] })), ['ak_unbound', 'images_mismatch'])
})

test('documents of other kinds are told apart', (t) => {
  for (const document of [null, 1, 'x', [], {}, { quote: {} }, { hcl_report: '', tpm_quote: {}, ak_public: '' }]) {
    t.throws(() => parseTpmEvidence(document), { instanceOf: MalformedError, code: 'ERR_TPM_EVIDENCE' })
  }
  t.notThrows(() => parseTpmEvidence(evidence()))
  const { public_key: _, ...keyless } = evidence()
  t.throws(() => parseTpmEvidence(keyless), { code: 'ERR_TPM_EVIDENCE' })
})

// ---- signatures and keys

test('signatures and messages are taken bare or wrapped, by the tools’ choice', (t) => {
  const { message, tss, plain } = quote()
  for (const changes of [
    { signature: toBase64(tss) },
    { signature: toHex(plain) },
    { signature: toHex(concatBytes(tss.slice(6, 38), tss.slice(40))) },
    { message: toBase64(sized(message)) },
    { message: [...message] },
  ]) {
    t.deepEqual(codes(judge({ ...evidence(), message: toBase64(message), signature: toBase64(tss), ...changes })), [
      'ak_unbound',
    ])
  }
})

test('a signature by another key, over another message, or of another scheme is refused', (t) => {
  const good = evidence()
  const other = quote({ key: newKey().privateKey })
  t.deepEqual(codes(judge({ ...good, signature: toBase64(other.tss), message: toBase64(other.message) })).slice(0, 1), [
    'quote_signature',
  ])
  t.deepEqual(codes(judge({ ...good, signature: toBase64(quote({ nonce: new Uint8Array(1) }).tss) })).slice(0, 1), [
    'quote_signature',
  ])
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const rsaPublic = toBase64(new Uint8Array(rsa.publicKey.export({ format: 'der', type: 'spki' })))
  t.deepEqual(codes(judge({ ...good, public_key: rsaPublic })).slice(0, 1), ['quote_signature'])
  t.deepEqual(judge({ ...good, public_key: rsaPublic }).claims.pcrs, {})
})

test('each kind of RSA signature is verified, bare and as the TPM has it', (t) => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const { message } = quote()
  const public_key = toBase64(new Uint8Array(rsa.publicKey.export({ format: 'der', type: 'spki' })))
  for (const [id, padding, saltLength] of [
    [0x14, 1, 0],
    [0x16, 6, 32],
    [0x16, 6, 222],
  ] as const) {
    const signature = new Uint8Array(
      sign('sha256', message, { key: rsa.privateKey, padding, ...(padding === 6 && { saltLength }) }),
    )
    for (const bytes of [signature, concatBytes(u16(id), u16(0x0b), sized(signature))]) {
      t.deepEqual(codes(judge({ ...evidence(), message: toBase64(message), public_key, signature: toBase64(bytes) })), [
        'ak_unbound',
      ])
    }
    const wrong = concatBytes(u16(id === 0x14 ? 0x16 : 0x14), u16(0x0b), sized(signature))
    t.true(
      codes(judge({ ...evidence(), message: toBase64(message), public_key, signature: toBase64(wrong) })).includes(
        'quote_signature',
      ),
    )
  }
})

/** TPMT_PUBLIC of the test's key. */
function publicArea(attributes: number, scheme = '0018000b'): Uint8Array {
  const jwk = ak.publicKey.export({ format: 'jwk' })
  const point = [jwk.x, jwk.y].map((coordinate) => sized(new Uint8Array(Buffer.from(coordinate ?? '', 'base64url'))))
  return concatBytes(
    u16(0x23),
    u16(0x0b),
    u32(attributes),
    u16(0),
    u16(0x10),
    new Uint8Array(Buffer.from(scheme, 'hex')),
    u16(3),
    u16(0x10),
    ...point,
  )
}

test('a key that the TPM says is not restricted to what it made itself does not attest', (t) => {
  const good = evidence()
  t.deepEqual(codes(judge({ ...good, public_key: toBase64(publicArea(0x50072)) })), ['ak_unbound'])
  t.deepEqual(codes(judge({ ...good, public_key: toBase64(sized(publicArea(0x50072))) })), ['ak_unbound'])
  for (const attributes of [0x40072, 0x50070, 0x50062, 0x50052, 0x70072, 0x40040, 0]) {
    t.true(
      codes(judge({ ...good, public_key: toBase64(publicArea(attributes)) })).includes('ak_unsuitable'),
      attributes.toString(16),
    )
  }
  t.true(codes(judge({ ...good, public_key: toBase64(publicArea(0x50072, '0018000c')) })).includes('quote_signature'))
})

test('keys that no TPM quotes with are refused as malformed', (t) => {
  for (const key of [
    generateKeyPairSync('ed25519').publicKey,
    generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey,
  ]) {
    const bytes = new Uint8Array(key.export({ format: 'der', type: 'spki' }))
    t.throws(() => parseQuoteKey(bytes), { instanceOf: MalformedError, code: 'ERR_TPM_PUBLIC' })
  }
})

// ---- nonce, selection, strength

test('a quote for another challenge, without values, or of nothing is not affirmed', (t) => {
  t.deepEqual(codes(judge(evidence(), { nonce: new Uint8Array(32) })), ['nonce_mismatch', 'ak_unbound'])
  t.deepEqual(codes(judge(evidence(), { nonce: NONCE.slice(0, 31) })), ['nonce_mismatch', 'ak_unbound'])
  t.deepEqual(codes(judge(evidence(), { nonce: undefined })), ['ak_unbound'])
  const { pcrs: _, ...valueless } = evidence()
  t.deepEqual(codes(judge(valueless)), ['unchecked_pcrs', 'ak_unbound'])
  t.deepEqual(codes(judge(evidence({ selections: [{ bank: 'sha256', pcrs: [] }] }))), ['no_pcrs_quoted', 'ak_unbound'])
  t.deepEqual(codes(judge(evidence({ selections: [] }))), ['no_pcrs_quoted', 'ak_unbound'])
})

test('SHA-1 in signature or bank is read, and a warning', (t) => {
  t.deepEqual(codes(judge(evidence({ hash: 'sha1' }))), ['weak_hash', 'ak_unbound'])
  t.deepEqual(codes(judge(evidence({ selections: [{ bank: 'sha1', pcrs: [0] }] }))), ['weak_hash', 'ak_unbound'])
  t.deepEqual(codes(judge(evidence({ selections: [...banks, { bank: 'sha512', pcrs: [9] }] }))), ['ak_unbound'])
})

// ---- certificates

const root = newKey()
const middle = newKey()
const issue = (
  subject: string,
  key: KeyObject,
  issuer: { name: string; key: KeyObject },
  extensions: readonly Extension[],
  serial = 9,
): ParsedCertificate =>
  parseCertificate(issueCertificate({ subject, key, issuer, extensions, serial: der(2, Uint8Array.of(serial)) }))
const rootCertificate = issue('Root', root.publicKey, { name: 'Root', key: root.privateKey }, [CA, CA_USAGE], 1)
const middleCertificate = issue('Middle', middle.publicKey, { name: 'Root', key: root.privateKey }, [CA, CA_USAGE], 2)
const byMiddle = { name: 'Middle', key: middle.privateKey }
const usage = (...oids: string[]): Extension => ({ oid: '2.5.29.37', value: sequence(...oids.map(objectId)) })
const SIGNING: Extension = { oid: '2.5.29.15', critical: true, value: der(3, Uint8Array.of(7, 0x80)) }
const ENCRYPTING: Extension = { oid: '2.5.29.15', critical: true, value: der(3, Uint8Array.of(5, 0x20)) }
const AIK = usage('2.23.133.8.3')
const akCertificate = issue('AK', ak.publicKey, byMiddle, [SIGNING, AIK])
const sent = (...certificates: readonly ParsedCertificate[]): JsonValue => ({
  ...evidence(),
  certificates: certificates.map(({ der: bytes }) => toBase64(bytes)),
})
const trusting = { anchors: [rootCertificate] }

test('a certificate of the key that leads to an anchor of the policy makes the verdict affirming', (t) => {
  const verdict = judge(sent(akCertificate, middleCertificate), trusting)
  t.is(verdict.verdict, 'affirming')
  t.deepEqual(codes(verdict), [])
  t.is(verdict.claims.ak_bound, true)
  const collateral = { ...NO_COLLATERAL, certificates: [akCertificate, middleCertificate] }
  t.is(judge(evidence(), { ...trusting, collateral }).verdict, 'affirming')
  t.is(judge(sent(akCertificate), { anchors: [middleCertificate] }).verdict, 'affirming')
  for (const purpose of ['1.3.6.1.4.1.311.21.36', '2.23.133.8.1']) {
    const other = issue('AK', ak.publicKey, byMiddle, [SIGNING, usage(purpose)])
    t.is(judge(sent(other, middleCertificate), trusting).verdict, 'affirming', purpose)
  }
})

test('an endorsement key cannot be bound by a file', (t) => {
  const ek = issue('EK', newKey().publicKey, byMiddle, [ENCRYPTING, usage('2.23.133.8.1')])
  const verdict = judge(sent(ek, middleCertificate), trusting)
  t.deepEqual(codes(verdict), ['ak_unbound'])
  t.is(verdict.verdict, 'warning')
  t.is(verdict.claims.ek_certificate, createHash('sha256').update(ek.der).digest('hex'))
  t.is(verdict.claims.ek_trusted, true)
  t.like(judge(sent(ek, middleCertificate)), { verdict: 'warning', claims: { ek_trusted: false } })
  t.deepEqual(codes(judge(sent(ek, middleCertificate), { ...trusting, at: new Date('2041-01-01') })).slice(0, 2), [
    'ak_unbound',
    'ek_certificate_expired',
  ])
  const forged = issue('EK', newKey().publicKey, { name: 'Middle', key: root.privateKey }, [
    ENCRYPTING,
    usage('2.23.133.8.1'),
  ])
  t.deepEqual(codes(judge(sent(forged, middleCertificate), trusting)), ['ak_unbound', 'ek_certificate_bad_signature'])
})

const unbinding: readonly [string, JsonValue, Partial<AppraisalContext>, string][] = [
  ['without an anchor', sent(akCertificate, middleCertificate), {}, 'ak_unbound'],
  ['with a CA missing', sent(akCertificate), trusting, 'ak_unbound'],
  [
    'of another key',
    sent(issue('AK', newKey().publicKey, byMiddle, [SIGNING, AIK]), middleCertificate),
    trusting,
    'ak_unbound',
  ],
  [
    'for web servers',
    sent(issue('AK', ak.publicKey, byMiddle, [SIGNING, usage('1.3.6.1.5.5.7.3.1')]), middleCertificate),
    trusting,
    'ak_unbound',
  ],
  [
    'that may be an endorsement key’s',
    sent(issue('AK', ak.publicKey, byMiddle, [usage('2.23.133.8.1')]), middleCertificate),
    trusting,
    'ak_unbound',
  ],
  ['for any purpose', sent(issue('AK', ak.publicKey, byMiddle, [SIGNING]), middleCertificate), trusting, 'ak_unbound'],
  [
    'for encryption',
    sent(issue('AK', ak.publicKey, byMiddle, [ENCRYPTING, AIK]), middleCertificate),
    trusting,
    'ak_unbound',
  ],
  [
    'that is a CA',
    sent(issue('AK', ak.publicKey, byMiddle, [CA, SIGNING, AIK]), middleCertificate),
    trusting,
    'ak_unbound',
  ],
  [
    'signed by another',
    sent(issue('AK', ak.publicKey, { name: 'Middle', key: root.privateKey }, [SIGNING, AIK]), middleCertificate),
    trusting,
    'ak_certificate_bad_signature',
  ],
  [
    'that has expired',
    sent(akCertificate, middleCertificate),
    { ...trusting, at: new Date('2041-01-01') },
    'ak_certificate_expired',
  ],
  [
    'of a later time',
    sent(akCertificate, middleCertificate),
    { ...trusting, at: new Date('2019-01-01') },
    'ak_certificate_not_yet_valid',
  ],
  [
    'with an unknown critical extension',
    sent(
      issue('AK', ak.publicKey, byMiddle, [SIGNING, AIK, { oid: '1.2.3', critical: true, value: octets() }]),
      middleCertificate,
    ),
    trusting,
    'ak_certificate_unknown_critical',
  ],
]

for (const [name, document, context, code] of unbinding) {
  test(`a certificate ${name} does not bind the key`, (t) => {
    const verdict = judge(document, context)
    t.true(codes(verdict).includes(code), codes(verdict).join())
    t.not(verdict.verdict, 'affirming')
    t.is(verdict.verdict, code === 'ak_unbound' ? 'warning' : 'contraindicated')
    t.is(verdict.claims.ak_bound, false)
  })
}

test('a revoked certificate is contradicted, and one whose list is not there stays unchecked', (t) => {
  const revoking = parseCrl(issueCrl({ issuer: byMiddle, revoked: [{ serial: der(2, Uint8Array.of(9)) }] }))
  const empty = parseCrl(issueCrl({ issuer: byMiddle }))
  const document = sent(akCertificate, middleCertificate)
  const withList = (crl: typeof empty): Partial<AppraisalContext> => ({
    ...trusting,
    collateral: { ...NO_COLLATERAL, crls: [crl] },
  })
  t.deepEqual(codes(judge(document, withList(revoking))), ['ak_certificate_revoked'])
  t.is(judge(document, withList(empty)).verdict, 'affirming')
  const listed = issue('AK', ak.publicKey, byMiddle, [SIGNING, AIK, { oid: '2.5.29.31', value: sequence() }])
  t.deepEqual(codes(judge(sent(listed, middleCertificate), trusting)), ['unchecked_crl'])
  t.is(judge(sent(listed, middleCertificate), withList(empty)).verdict, 'affirming')
})

test('a certificate alone may name the key that signed', (t) => {
  const { public_key: _, ...keyless } = evidence()
  const certificates = [toBase64(akCertificate.der), toBase64(middleCertificate.der)]
  t.is(judge({ ...keyless, certificates }, trusting).verdict, 'affirming')
  const other = issue('AK', newKey().publicKey, byMiddle, [SIGNING, AIK])
  t.deepEqual(codes(judge({ ...keyless, certificates: [toBase64(other.der)] }, trusting)), ['quote_signature'])
})

const identity = (model: string): Uint8Array =>
  sequence(
    der(
      0xa4,
      sequence(
        set(sequence(objectId('2.23.133.2.1'), text('id:00001014'))),
        set(sequence(objectId('2.23.133.2.2'), text(model))),
        set(sequence(objectId('2.23.133.2.3'), text('id:20191023'))),
      ),
    ),
  )

test('a TPM that its certificate calls a program is said to be one', (t) => {
  const named = (model: string): ParsedCertificate =>
    issue('AK', ak.publicKey, byMiddle, [SIGNING, AIK, { oid: '2.5.29.17', critical: true, value: identity(model) }])
  const software = judge(sent(named('swtpm'), middleCertificate), trusting)
  t.deepEqual(codes(software), ['emulated'])
  t.is(software.claims.emulated, true)
  const hardware = judge(sent(named('SLB9670'), middleCertificate), trusting)
  t.is(hardware.verdict, 'affirming')
  t.is(hardware.claims.emulated, false)
})

test('certificates of Google’s virtual TPMs say whose TPM they are of, and may bind a key', (t) => {
  const path = '../../vectors/tpm/go-tpm-tools/internal/test/certificates/'
  for (const name of ['ecc_enc', 'ecc_sign', 'rsa_enc', 'rsa_sign']) {
    const certificate = parseCertificate(
      readFileSync(new URL(`${path}uca_tpm_${name}_cert.pem`, import.meta.url), 'utf8'),
    )
    const found = parseTpmIdentity(certificate.extension('2.5.29.17') ?? new Uint8Array())
    t.deepEqual(found, { manufacturer: 'id:474F4F47', model: 'vTPM', version: 'id:20160511' })
    t.false(isSoftwareTpm(found))
    const key = new Uint8Array(certificate.publicKey.export({ format: 'der', type: 'spki' }))
    t.notThrows(() => parseQuoteKey(key))
  }
})

// ---- a log alone

test('an event log that came alone is replayed, and nobody vouches for it', (t) => {
  const path = '../../vectors/tpm/go-eventlog/eventlogs/tpm/cos-85-amd-sev.bin'
  const log = parseEventLog(new Uint8Array(readFileSync(new URL(path, import.meta.url))))
  const verdict = verdictOf(appraiseEventLog(log))
  t.is(verdict.verdict, 'warning')
  t.deepEqual(codes(verdict), ['no_quote'])
  t.is(verdict.claims.secure_boot, true)
  t.deepEqual(Object.keys(verdict.claims.pcrs as object), ['sha1', 'sha256', 'sha384'])
})

// ---- anything

test('whatever evidence is changed to, it is read or refused', (t) => {
  const good = evidence()
  refusesOrKeeps(t, altered(good), (document) => parseTpmEvidence(document as JsonValue))
  const bytes = (sample: Uint8Array): fc.Arbitrary<Uint8Array> =>
    fc.oneof(
      {
        weight: 4,
        arbitrary: fc
          .tuple(fc.nat(sample.length), fc.nat(4), fc.uint8Array({ maxLength: 6 }))
          .map(([at, length, piece]) => concatBytes(sample.slice(0, at), piece, sample.slice(at + length))),
      },
      fc.uint8Array({ maxLength: 96 }),
    )
  refusesOrKeeps(t, bytes(spki), parseQuoteKey)
  refusesOrKeeps(t, bytes(publicArea(0x50072)), parseQuoteKey)
  refusesOrKeeps(t, bytes(quote().tss), parseQuoteSignature)
  refusesOrKeeps(t, bytes(serialized(banks)), (file) => parsePcrFile(file, banks))
  refusesOrKeeps(t, bytes(identity('swtpm')), parseTpmIdentity)
})

test('no byte of an affirmed quote or its signature can be changed', (t) => {
  const document = sent(akCertificate, middleCertificate) as Record<string, JsonValue>
  t.is(judge(document, trusting).verdict, 'affirming')
  for (const member of ['message', 'signature'] as const) {
    const text = document[member]
    if (typeof text !== 'string') return t.fail()
    const bytes = Buffer.from(text, 'base64')
    for (let at = 0; at < bytes.length; at++) {
      for (const bit of [1, 0x80]) {
        const changed = Buffer.from(bytes)
        changed[at] = (changed[at] ?? 0) ^ bit
        t.true(isRefused({ ...document, [member]: changed.toString('base64') }), `${member} at ${at}`)
      }
      t.true(isRefused({ ...document, [member]: bytes.subarray(0, at).toString('base64') }), `${member} cut at ${at}`)
    }
    const longer = concatBytes(bytes, Uint8Array.of(0))
    t.true(isRefused({ ...document, [member]: toBase64(longer) }), `${member} longer`)
  }
})

test('no byte of the certificates that bind a key can be changed', (t) => {
  for (const [index, { der: bytes }] of [akCertificate, middleCertificate].entries()) {
    for (let at = 0; at < bytes.length; at += 2) {
      const changed = bytes.slice()
      changed[at] = (changed[at] ?? 0) ^ 0x04
      const certificates = [akCertificate, middleCertificate]
        .map(({ der: own }) => toBase64(own))
        .with(index, toBase64(changed))
      t.not(verdictOrMalformed({ ...evidence(), certificates }), 'affirming', `certificate ${index} at ${at}`)
    }
  }
})

function verdictOrMalformed(document: JsonValue): string {
  try {
    return judge(document, trusting).verdict
  } catch (error) {
    if (error instanceof MalformedError) return 'malformed'
    throw error
  }
}

function isRefused(document: JsonValue): boolean {
  return ['contraindicated', 'malformed'].includes(verdictOrMalformed(document))
}
