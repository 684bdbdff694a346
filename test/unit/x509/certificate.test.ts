import { generateKeyPairSync } from 'node:crypto'
import { globSync, readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { parseCertificate } from '#attestation/x509/certificate'
import { parsePem } from '#attestation/x509/pem'
import { MalformedError } from '#protocol/errors'
import { der, integer, NULL, objectId, octets, sequence, TRUE, text } from '../../fixtures/x509/encode-der.ts'
import {
  CA,
  type CertificateSpec,
  ECDSA_SHA256,
  issueCertificate,
  newKey,
  PSS_SHA384,
  pss,
} from '../../fixtures/x509/issue.ts'
import { refusesOrKeeps } from '../parser-property.ts'

const { publicKey, privateKey } = newKey()
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const issue = (spec: Partial<CertificateSpec>): Uint8Array =>
  issueCertificate({ subject: 'leaf', key: publicKey, issuer: { name: 'root', key: privateKey }, ...spec })

/** AMD's, Intel's, Google's and Microsoft's, in the files and inside quotes. */
const genuine = globSync('test/vectors/{snp,tdx,tpm}/**/*')
  .filter((file) => /\.(pem|testcer|dat|bin)$|_chain_turin$|\/(tdx|sgx)_quote$|ask_ark/.test(file))
  .flatMap((file) => {
    const blocks =
      readFileSync(file, 'latin1').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
    return blocks.flatMap((block) => parsePem(block)).map(({ bytes }) => ({ file, bytes }))
  })

test('certificates of AMD, Intel, Google and Microsoft are read, oddities included', (t) => {
  t.true(genuine.length > 40)
  for (const { file, bytes } of genuine) {
    const certificate = parseCertificate(bytes)
    t.deepEqual(certificate.notAfter, certificate.x509.validToDate, file)
    t.deepEqual(certificate.notBefore, certificate.x509.validFromDate, file)
    t.is(BigInt(`0x${certificate.serial}`), BigInt(`0x${certificate.x509.serialNumber}`), file)
  }
})

test('a certificate is read field by field', (t) => {
  const certificate = parseCertificate(issue({ serial: integer(0, 0xff, 1), extensions: [CA] }))
  t.is(certificate.serial, 'ff01')
  t.deepEqual(certificate.basicConstraints, { ca: true, pathLength: undefined })
  t.is(certificate.signatureAlgorithm, '1.2.840.10045.4.3.2')
  t.is(certificate.signatureParameters, undefined)
  t.deepEqual(certificate.notAfter, new Date('2040-01-01'))
  t.deepEqual(certificate.extension('2.5.29.19'), sequence(TRUE))
  t.is(certificate.extension('2.5.29.15'), undefined)
})

const rsaIssuer = { name: 'root', key: rsa.privateKey }
const unknown = { oid: '1.2.3.4', critical: true, value: NULL }
const refused: readonly [oddity: string, certificate: Uint8Array, code?: string][] = [
  ['a negative serial number', issue({ serial: integer(0x80) })],
  ['a serial number in a longer form than needed', issue({ serial: integer(0, 1) })],
  ['a serial number of 22 bytes', issue({ serial: integer(...new Array<number>(22).fill(1)) })],
  ['a serial number without bytes', issue({ serial: integer() })],
  ['another signature algorithm outside than inside', issue({ outerAlgorithm: PSS_SHA384 })],
  ['parameters for ECDSA', issue({ algorithm: sequence(objectId('1.2.840.10045.4.3.2'), NULL) })],
  ['an extension twice', issue({ extensions: [CA, CA] })],
  ['an extension twice that is not known', issue({ extensions: [unknown, { ...unknown, critical: false }] })],
  ['a version that does not exist', issue({ version: der(0xa0, integer(3)) })],
  ['extensions in version 1', issue({ version: der(0xa0, integer(0)), extensions: [CA] })],
  ['a path length below zero', issue({ extensions: [{ ...CA, value: sequence(TRUE, integer(0xff)) }] })],
  [
    'a flag that is neither true nor false',
    issue({ extensions: [{ ...CA, value: sequence(der(1, Uint8Array.of(1))) }] }),
  ],
  ['unused bits that are set', issue({ extensions: [{ oid: '2.5.29.15', value: der(3, Uint8Array.of(4, 0x0f)) }] })],
  ['a set where a sequence is needed', issue({}).with(0, 0x31)],
  [
    'RSA-PSS with a salt of another length than its hash',
    issue({ issuer: rsaIssuer, algorithm: pss('sha384', 'sha384', 32) }),
  ],
  ['RSA-PSS that masks with another hash', issue({ issuer: rsaIssuer, algorithm: pss('sha384', 'sha256', 48) })],
  ['RSA-PSS with SHA-1', issue({ issuer: rsaIssuer, algorithm: pss('sha1', 'sha1', 20) })],
  ['RSA-PSS with an unknown trailer', issue({ issuer: rsaIssuer, algorithm: pss('sha384', 'sha384', 48, 2) })],
  ['RSA-PSS without parameters', issue({ issuer: rsaIssuer, algorithm: sequence(objectId('1.2.840.113549.1.1.10')) })],
  [
    'RSA-PSS with empty parameters',
    issue({ issuer: rsaIssuer, algorithm: sequence(objectId('1.2.840.113549.1.1.10'), sequence()) }),
  ],
]
for (const [oddity, certificate] of refused) {
  test(`a certificate with ${oddity} is refused`, (t) => {
    t.throws(() => parseCertificate(certificate), { instanceOf: MalformedError })
  })
}

test('AMD’s RSA-PSS parameters are the ones that are accepted, also with their needless trailer', (t) => {
  const certificate = parseCertificate(issue({ issuer: rsaIssuer }))
  t.deepEqual(certificate.algorithm.scheme, { kind: 'rsa-pss', hash: 'sha384', saltLength: 48 })
})

const times: readonly string[] = [
  '20230229000000Z',
  '20231301000000Z',
  '20230101240000Z',
  '20230101000060Z',
  '202301010000Z',
]
for (const moment of times) {
  test(`a certificate that is valid until ${moment} is refused`, (t) => {
    const good = issue({ notAfter: new Date('2099-01-01') })
    const at = Buffer.from(good).indexOf('20990101000000Z')
    const damaged = Buffer.from(good)
    damaged.write(moment.padEnd(15, 'Z'), at, 'latin1')
    t.throws(() => parseCertificate(new Uint8Array(damaged)), { instanceOf: MalformedError })
  })
}

test('a critical extension that nobody interprets is reported', (t) => {
  const extensions = [CA, unknown, { oid: '2.25.340282366920938463', value: octets(text('x')) }]
  t.deepEqual(parseCertificate(issue({ extensions })).unknownCritical, ['1.2.3.4'])
})

test('a certificate with any bytes changed, cut or added is read whole, or refused', (t) => {
  const good = issue({ extensions: [CA], algorithm: ECDSA_SHA256 })
  const changed = fc
    .tuple(fc.nat(good.length), fc.nat(4), fc.uint8Array({ maxLength: 4 }))
    .map(([at, length, bytes]) => new Uint8Array([...good.subarray(0, at), ...bytes, ...good.subarray(at + length)]))
  refusesOrKeeps(
    t,
    fc.oneof({ weight: 4, arbitrary: changed }, fc.uint8Array({ maxLength: 64 })),
    parseCertificate,
    (certificate, input) => Buffer.compare(certificate.der, input) === 0,
  )
})

test('a certificate cut at any byte is refused', (t) => {
  const good = issue({ extensions: [CA] })
  for (let length = 0; length < good.length; length++) {
    t.throws(() => parseCertificate(good.slice(0, length)), { instanceOf: MalformedError })
  }
})
