import { generateKeyPairSync, sign } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { createPodKey, requestFor } from '#attestation/client/pod-identity'
import {
  MAX_REQUEST_BYTES,
  parseCertificateRequest,
  verifyCertificateRequest,
} from '#attestation/x509/certificate-request'
import {
  derBitString,
  derInteger,
  derObjectId,
  derOctetString,
  derPrimitive,
  derSequence,
  derSet,
  derTagged,
} from '#protocol/der-writer'
import { isDnsName } from '#protocol/dns-name'
import { refusesOrKeeps } from '../parser-property.ts'

const NAMES = ['web.shop.example', 'web']
const key = await createPodKey()
const REQUEST = await requestFor(key, NAMES)

const EC = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const SPKI = new Uint8Array(EC.publicKey.export({ type: 'spki', format: 'der' }))
const text = (value: string) => new TextEncoder().encode(value)
const dns = (name: string) => derPrimitive(2, text(name))
const SAN = '2.5.29.17'

interface Parts {
  readonly version?: number
  readonly publicKey?: Uint8Array
  readonly attributes?: readonly Uint8Array[]
  readonly algorithm?: string
}

const names = (...generalNames: readonly Uint8Array[]) =>
  derSequence(derObjectId(SAN), derOctetString(derSequence(...generalNames)))
const asking = (...extensions: readonly Uint8Array[]) =>
  derSequence(derObjectId('1.2.840.113549.1.9.14'), derSet(derSequence(...extensions)))

/** A request put together by hand and signed as it is, whatever it says. */
function built({
  version = 0,
  publicKey = SPKI,
  attributes = [asking(names(dns('a')))],
  algorithm,
}: Parts): Uint8Array {
  const info = derSequence(derInteger(Uint8Array.of(version)), derSequence(), publicKey, derTagged(0, ...attributes))
  const signature = derBitString(new Uint8Array(sign('sha256', info, EC.privateKey)))
  return derSequence(info, derSequence(derObjectId(algorithm ?? '1.2.840.10045.4.3.2')), signature)
}

test('a request gives key and names, and proves that its sender has the key', (t) => {
  const parsed = parseCertificateRequest(REQUEST)
  t.deepEqual(parsed.names, NAMES)
  t.deepEqual(parsed.publicKey, key.publicKey)
  t.notThrows(() => verifyCertificateRequest(parsed))
})

test('a request that is signed with another key is refused', (t) => {
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' })
  const request = parseCertificateRequest(built({ publicKey: new Uint8Array(other) }))
  t.throws(() => verifyCertificateRequest(request), { code: 'ERR_CERTIFICATE_REQUEST_SIGNATURE' })
  const noPoint = SPKI.slice()
  noPoint[noPoint.length - 1] = (noPoint.at(-1) ?? 0) ^ 1
  const invalid = parseCertificateRequest(built({ publicKey: noPoint }))
  t.throws(() => verifyCertificateRequest(invalid), { code: 'ERR_CERTIFICATE_REQUEST_SIGNATURE' })
})

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'der' })
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ type: 'spki', format: 'der' })
const basicConstraints = derSequence(
  derObjectId('2.5.29.19'),
  derOctetString(derSequence(Uint8Array.of(0x01, 0x01, 0xff))),
)
const REFUSED: readonly [string, Uint8Array][] = [
  ['of another version', built({ version: 1 })],
  ['for an RSA key', built({ publicKey: new Uint8Array(rsa) })],
  ['for a key on another curve', built({ publicKey: new Uint8Array(p384) })],
  ['without names', built({ attributes: [] })],
  ['with no name in its list', built({ attributes: [asking(names())] })],
  ['for a name twice', built({ attributes: [asking(names(dns('a'), dns('a')))] })],
  [
    'for seventeen names',
    built({ attributes: [asking(names(...Array.from({ length: 17 }, (_, index) => dns(`n${index}`))))] }),
  ],
  ['for a wildcard', built({ attributes: [asking(names(dns('*.example')))] })],
  ['for capitals', built({ attributes: [asking(names(dns('Web.example')))] })],
  ['for a name with a NUL byte', built({ attributes: [asking(names(dns('web.example\0.evil')))] })],
  ['for an address', built({ attributes: [asking(names(derPrimitive(7, Uint8Array.of(10, 0, 0, 1))))] })],
  ['to be a CA', built({ attributes: [asking(names(dns('a')), basicConstraints)] })],
  ['with two lists of extensions', built({ attributes: [asking(names(dns('a'))), asking(names(dns('b')))] })],
  ['signed by RSA in name', built({ algorithm: '1.2.840.113549.1.1.11' })],
  ['signed with SHA-512 in name', built({ algorithm: '1.2.840.10045.4.3.4' })],
  ['that is larger than any needs to be', new Uint8Array(MAX_REQUEST_BYTES + 1)],
  ['followed by something', Uint8Array.of(...REQUEST, 0)],
]

for (const [what, bytes] of REFUSED) {
  test(`a certificate request ${what} is refused`, (t) => {
    t.throws(() => parseCertificateRequest(bytes), { code: 'ERR_CERTIFICATE_REQUEST' })
  })
}

test('every cut of a request is refused', (t) => {
  for (let length = 0; length < REQUEST.length; length++) {
    t.throws(() => parseCertificateRequest(REQUEST.subarray(0, length)), { code: 'ERR_CERTIFICATE_REQUEST' })
  }
})

test('no changed request proves anything', (t) => {
  const changed = fc
    .tuple(fc.nat(REQUEST.length - 1), fc.integer({ min: 1, max: 255 }))
    .map(([at, bits]) => REQUEST.map((byte, index) => (index === at ? byte ^ bits : byte)))
  refusesOrKeeps(
    t,
    fc.oneof({ weight: 4, arbitrary: changed }, fc.uint8Array({ maxLength: 400 })),
    (bytes) => {
      const parsed = parseCertificateRequest(bytes)
      t.true(parsed.names.every(isDnsName))
      verifyCertificateRequest(parsed)
    },
    () => false,
  )
})

test('names of certificates are DNS names in lower case, and nothing that a client might read as an address', (t) => {
  for (const good of ['a', 'web.shop.example', 'xn--bcher-kva.example', '1.example', `${'a'.repeat(63)}.b`]) {
    t.true(isDnsName(good), good)
  }
  for (const bad of [
    '',
    '.',
    'a.',
    '.a',
    '-a',
    'a-',
    'A',
    'a_b',
    '10.0.0.1',
    '1',
    'a b',
    '*.a',
    `${'a'.repeat(64)}.b`,
  ]) {
    t.false(isDnsName(bad), bad)
  }
  t.false(isDnsName(Array(128).fill('a').join('.')))
})
