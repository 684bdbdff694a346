import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { parseCertificate } from '#attestation/x509/certificate'
import { parseCrl, verifyCrl } from '#attestation/x509/crl'
import { encodePem, parsePem } from '#attestation/x509/pem'
import { MalformedError } from '#protocol/errors'
import { der, integer, NULL, sequence } from '../../fixtures/x509/encode-der.ts'
import {
  CA,
  CA_USAGE,
  type CrlSpec,
  issueCertificate,
  issueCrl,
  newKey,
  PSS_SHA384,
} from '../../fixtures/x509/issue.ts'
import { refusesOrKeeps } from '../parser-property.ts'

const VECTORS = 'test/vectors'
const { publicKey, privateKey } = newKey()
const root = { name: 'root', key: privateKey }
const authority = parseCertificate(
  issueCertificate({ subject: 'root', key: publicKey, issuer: root, extensions: [CA] }),
)
const issue = (spec: Partial<CrlSpec> = {}): Uint8Array => issueCrl({ issuer: root, ...spec })
const REASON = '2.5.29.21'
const IDP = '2.5.29.28'
const enumerated = (value: number): Uint8Array => der(0x0a, Uint8Array.of(value))

test('the revocation lists of AMD and Intel are read, and are theirs', (t) => {
  const [, , ark] = parsePem(readFileSync(`${VECTORS}/tpm/trustee/az-snp-vtpm/vcek.pem`, 'latin1'))
  const amd = parseCrl(readFileSync(`${VECTORS}/snp/openpcc/sev_certificates/test_amd_milan_crl.pem`, 'latin1'))
  t.true(verifyCrl(amd, parseCertificate(ark?.bytes ?? new Uint8Array())))
  t.deepEqual(
    [amd.thisUpdate.toISOString().slice(0, 10), amd.nextUpdate.toISOString().slice(0, 10)],
    ['2025-05-06', '2026-05-12'],
  )
  const intel = parseCertificate(readFileSync(`${VECTORS}/tdx/go-tdx-guest/verify/trusted_root.pem`, 'latin1'))
  t.true(verifyCrl(parseCrl(readFileSync(`${VECTORS}/tdx/go-tdx-guest/testing/testdata/rootcrl.der`)), intel))
  const pck = parseCrl(readFileSync(`${VECTORS}/tdx/go-tdx-guest/testing/testdata/pckcrl`))
  t.is(pck.revoked.size, 44)
  t.is(pck.revoked.get('6fc34e5023e728923435d61aa4b83c618166ad35')?.reason, 1)
  t.true(pck.revoked.has('efae6e9715fca13b87e333e8261ed6d990a926ad'))
  t.false(verifyCrl(pck, intel))
})

test('a list is read entry by entry, from DER and from PEM', (t) => {
  const revoked = [
    { serial: integer(5), extensions: [{ oid: REASON, value: enumerated(4) }] },
    { serial: integer(0, 0x80) },
  ]
  const bytes = issue({ revoked })
  const crl = parseCrl(bytes)
  t.deepEqual(
    [...crl.revoked],
    [
      ['05', { date: new Date('2024-01-01'), reason: 4 }],
      ['80', { date: new Date('2024-01-01'), reason: undefined }],
    ],
  )
  t.true(verifyCrl(crl, authority))
  t.deepEqual(parseCrl(encodePem({ label: 'X509 CRL', bytes })), crl)
})

test('a list is only its issuer’s when name, key usage and signature say so', (t) => {
  const crl = parseCrl(issue())
  const stranger = newKey()
  const other = { name: 'other', key: privateKey }
  const certificate = (spec: object) =>
    parseCertificate(issueCertificate({ subject: 'root', key: publicKey, issuer: root, extensions: [CA], ...spec }))
  t.false(verifyCrl(crl, certificate({ key: stranger.publicKey })))
  t.false(verifyCrl(parseCrl(issueCrl({ issuer: other })), authority))
  t.true(verifyCrl(crl, certificate({ extensions: [CA, CA_USAGE] })))
  t.false(verifyCrl(crl, certificate({ extensions: [CA, { ...CA_USAGE, value: der(3, Uint8Array.of(2, 0x04)) }] })))
})

const scopes: readonly [string, Uint8Array, string, number][] = [
  ['users only', der(0x81, Uint8Array.of(0xff)), 'end-entities', 0],
  ['authorities only', der(0x82, Uint8Array.of(0xff)), 'cas', 0],
  ['everybody, found at some place', der(0xa0, NULL), 'all', 0],
  ['some reasons only', der(0x83, Uint8Array.of(1, 0)), 'all', 1],
  ['certificates of others', der(0x84, Uint8Array.of(0xff)), 'all', 1],
]
for (const [what, field, scope, unknown] of scopes) {
  test(`a list about ${what} is known as such, or as not understood`, (t) => {
    const crl = parseCrl(issue({ extensions: [{ oid: IDP, critical: true, value: sequence(field) }] }))
    t.is(crl.scope, scope as typeof crl.scope)
    t.is(crl.unknownCritical.length, unknown)
  })
}

test('critical extensions that nobody interprets are reported, of the list and of its entries', (t) => {
  const delta = { oid: '2.5.29.27', critical: true, value: integer(1) }
  const indirect = { oid: '2.5.29.29', critical: true, value: sequence() }
  const crl = parseCrl(issue({ extensions: [delta], revoked: [{ serial: integer(5), extensions: [indirect] }] }))
  t.deepEqual(crl.unknownCritical, ['2.5.29.27', '2.5.29.29'])
})

const refused: readonly [string, Uint8Array][] = [
  ['another signature algorithm outside than inside', issue({ outerAlgorithm: PSS_SHA384 })],
  ['a negative serial number', issue({ revoked: [{ serial: integer(0x80) }] })],
  [
    'a reason that does not exist',
    issue({ revoked: [{ serial: integer(5), extensions: [{ oid: REASON, value: enumerated(7) }] }] }),
  ],
  ['an extension twice', issue({ extensions: [CA, CA] })],
  ['a certificate in its place', authority.der],
]
for (const [oddity, bytes] of refused) {
  test(`a revocation list with ${oddity} is refused`, (t) => {
    t.throws(() => parseCrl(bytes), { instanceOf: MalformedError })
  })
}

test('no byte of a revocation list can be changed, cut or added unnoticed', (t) => {
  const good = issue({ revoked: [{ serial: integer(5) }] })
  const accepted = (bytes: Uint8Array): boolean => {
    try {
      return verifyCrl(parseCrl(bytes), authority)
    } catch (error) {
      t.true(error instanceof MalformedError)
      return false
    }
  }
  t.true(accepted(good))
  for (let at = 0; at < good.length; at++) {
    for (const flip of [0x01, 0x80]) t.false(accepted(good.with(at, (good[at] ?? 0) ^ flip)), `byte ${at}`)
    t.false(accepted(good.slice(0, at)))
  }
  t.false(accepted(new Uint8Array([...good, 0])))
})

test('whatever bytes come as a revocation list or as PEM, they are read whole or refused', (t) => {
  const good = issue({ revoked: [{ serial: integer(5) }] })
  const changed = fc
    .tuple(fc.nat(good.length), fc.nat(4), fc.uint8Array({ maxLength: 4 }))
    .map(([at, length, bytes]) => new Uint8Array([...good.subarray(0, at), ...bytes, ...good.subarray(at + length)]))
  refusesOrKeeps(t, fc.oneof(changed, fc.uint8Array({ maxLength: 64 })), parseCrl, (crl, input) => {
    return Buffer.compare(crl.der, input) === 0
  })
  const pem = encodePem({ label: 'X509 CRL', bytes: good })
  const text = fc
    .tuple(fc.nat(pem.length), fc.nat(4), fc.string({ maxLength: 4 }))
    .map(([at, length, piece]) => pem.slice(0, at) + piece + pem.slice(at + length))
  refusesOrKeeps(t, fc.oneof(text, fc.string()), parsePem, (blocks) => blocks.every(({ label }) => label.length > 0))
})
