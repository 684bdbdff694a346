import { createHash, type KeyObject } from 'node:crypto'
import test from 'ava'
import { type ParsedCertificate, parseCertificate } from '#attestation/x509/certificate'
import { parseCrl } from '#attestation/x509/crl'
import { type PathRequest, pinnedAnchors, verifyPath } from '#attestation/x509/path'
import { CaissonError } from '#protocol/errors'
import { der, integer, NULL, sequence } from '../../fixtures/x509/encode-der.ts'
import {
  CA,
  CA_USAGE,
  type CertificateSpec,
  type CrlSpec,
  issueCertificate,
  issueCrl,
  newKey,
  pathLength,
} from '../../fixtures/x509/issue.ts'

const AT = new Date('2025-01-01')
const keys = { root: newKey(), ca: newKey(), leaf: newKey(), stranger: newKey() }

function certificate(
  spec: Partial<CertificateSpec> & { subject: string; key: KeyObject; by: 'root' | 'ca' | 'stranger' },
) {
  const issuer = { name: spec.by === 'stranger' ? 'root' : spec.by, key: keys[spec.by].privateKey }
  return parseCertificate(issueCertificate({ issuer, ...spec }))
}
const makeRoot = (spec: Partial<CertificateSpec> = {}): ParsedCertificate =>
  certificate({ subject: 'root', key: keys.root.publicKey, by: 'root', extensions: [CA, CA_USAGE], ...spec })
const makeCa = (spec: Partial<CertificateSpec> & { by?: 'root' | 'stranger' } = {}): ParsedCertificate =>
  certificate({
    subject: 'ca',
    key: keys.ca.publicKey,
    by: 'root',
    serial: integer(2),
    extensions: [CA, CA_USAGE],
    ...spec,
  })
const makeLeaf = (spec: Partial<CertificateSpec> = {}): ParsedCertificate =>
  certificate({ subject: 'leaf', key: keys.leaf.publicKey, by: 'ca', serial: integer(3), ...spec })
const makeCrl = (by: 'root' | 'ca', spec: Partial<CrlSpec> = {}) =>
  parseCrl(issueCrl({ issuer: { name: by, key: keys[by].privateKey }, ...spec }))

const [root, ca, leaf] = [makeRoot(), makeCa(), makeLeaf()]
const crls = [makeCrl('root'), makeCrl('ca')]

function problems(request: Partial<PathRequest>): string[] {
  return verifyPath({ leaf, candidates: [ca], anchors: [root], at: AT, ...request }).problems.map(({ code }) => code)
}

test('a path from a leaf over an intermediate to an anchor holds', (t) => {
  const { path, problems: found } = verifyPath({
    leaf,
    candidates: [root, leaf, ca],
    anchors: [root],
    at: AT,
    crls,
    requireCrl: 'all',
  })
  t.deepEqual(found, [])
  t.deepEqual(path, [leaf, ca, root])
})

test('an intermediate may be the anchor, and so may the leaf', (t) => {
  t.deepEqual(verifyPath({ leaf, candidates: [], anchors: [ca], at: AT }).path, [leaf, ca])
  t.deepEqual(verifyPath({ leaf, candidates: [], anchors: [leaf], at: AT }).path, [leaf])
})

const DAY = new Date('2024-06-01')
const LATER = new Date('2025-06-01')
const unknown = { oid: '1.2.3.4', critical: true, value: NULL }
const signOnly = { ...CA_USAGE, value: der(3, Uint8Array.of(7, 0x80)) }
const revoked = (serial: number) => ({ revoked: [{ serial: integer(serial) }] })
const cases: readonly [title: string, request: Partial<PathRequest>, problems: string[]][] = [
  ['without the intermediate', { candidates: [] }, ['issuer_missing']],
  ['to a root that is not pinned', { candidates: [ca, root], anchors: [] }, ['untrusted']],
  ['over an intermediate that a stranger signed', { candidates: [makeCa({ by: 'stranger' })] }, ['bad_signature']],
  ['over an intermediate that is no CA', { candidates: [makeCa({ extensions: [] })] }, ['issuer_unfit']],
  [
    'over an intermediate that may not sign certificates',
    { candidates: [makeCa({ extensions: [CA, signOnly] })] },
    ['issuer_unfit'],
  ],
  [
    'over an intermediate with an unknown critical extension',
    { candidates: [makeCa({ extensions: [CA, unknown] })] },
    ['issuer_unfit'],
  ],
  ['longer than the anchor allows', { anchors: [makeRoot({ extensions: [pathLength(0)] })] }, ['issuer_unfit']],
  ['longer than the caller allows', { maxDepth: 2 }, ['too_deep']],
  [
    'with an algorithm that the caller does not accept',
    { algorithms: new Set(['1.2.840.113549.1.1.10']) },
    ['weak_algorithm'],
  ],
  ['of a leaf with an unknown critical extension', { leaf: makeLeaf({ extensions: [unknown] }) }, ['unknown_critical']],
  ['of a leaf that has expired', { leaf: makeLeaf({ notAfter: DAY }) }, ['expired']],
  ['of a leaf that is not valid yet', { leaf: makeLeaf({ notBefore: LATER }) }, ['not_yet_valid']],
  ['over an intermediate that has expired', { candidates: [makeCa({ notAfter: DAY })] }, ['expired']],
  ['to an anchor that has expired', { anchors: [makeRoot({ notAfter: DAY })] }, ['expired']],
  ['of a revoked leaf', { crls: [makeCrl('ca', revoked(3))] }, ['revoked']],
  [
    'of a leaf that only an old list revokes',
    { crls: [makeCrl('ca', { ...revoked(3), nextUpdate: DAY })] },
    ['revoked'],
  ],
  ['over a revoked intermediate', { crls: [makeCrl('root', revoked(2))] }, ['revoked']],
  ['without lists that are demanded', { requireCrl: 'all' }, ['crl_missing', 'crl_missing']],
  ['without a list that is demanded of intermediates', { requireCrl: 'intermediates' }, ['crl_missing']],
  [
    'with a list of another issuer only',
    { crls: [crls[0]].filter((crl) => crl !== undefined), requireCrl: 'all' },
    ['crl_missing'],
  ],
  ['with a list that is too old', { crls: [makeCrl('ca', { nextUpdate: DAY })] }, ['crl_expired']],
  ['with a list of the future', { crls: [makeCrl('ca', { thisUpdate: LATER })] }, ['crl_not_yet_valid']],
  [
    'with a list that a stranger signed in the issuer’s name',
    { crls: [parseCrl(issueCrl({ issuer: { name: 'ca', key: keys.stranger.privateKey } }))] },
    ['crl_invalid'],
  ],
  [
    'with a list that has an unknown critical extension',
    { crls: [makeCrl('ca', { extensions: [unknown] })] },
    ['crl_invalid'],
  ],
  [
    'with a list for CAs only, where one for the leaf is demanded',
    {
      crls: [
        makeCrl('ca', {
          extensions: [{ oid: '2.5.29.28', critical: true, value: sequence(der(0x82, Uint8Array.of(255))) }],
        }),
        ...crls.slice(0, 1),
      ],
      requireCrl: 'all',
    },
    ['crl_missing'],
  ],
]
for (const [title, request, expected] of cases) {
  test(`a path ${title} does not hold, and says so`, (t) => {
    t.deepEqual(problems(request), expected)
  })
}

test('of two intermediates of one name, the one whose path holds is taken', (t) => {
  const candidates = [makeCa({ by: 'stranger' }), makeCa({ notAfter: DAY }), ca]
  t.deepEqual(verifyPath({ leaf, candidates, anchors: [root], at: AT }).path, [leaf, ca, root])
})

test('an old list beside a valid one does no harm', (t) => {
  t.deepEqual(problems({ crls: [makeCrl('ca', { nextUpdate: DAY }), ...crls], requireCrl: 'all' }), [])
})

test('certificates that all issue each other are given up soon', (t) => {
  const issuer = { name: 'ca', key: keys.ca.privateKey }
  const ring = Array.from({ length: 200 }, (_, serial) =>
    parseCertificate(
      issueCertificate({ subject: 'ca', key: keys.ca.publicKey, issuer, serial: integer(1, serial), extensions: [CA] }),
    ),
  )
  const { problems: found } = verifyPath({ leaf, candidates: ring, anchors: [root], at: AT, maxDepth: 100 })
  t.not(found.length, 0)
})

test('roots that are trusted by their key are found in any certificate that this key signed', (t) => {
  const pins = new Set([createHash('sha256').update(root.publicKeyInfo).digest('hex')])
  const renewed = makeRoot({ serial: integer(9), notAfter: new Date('2049-01-01') })
  const forged = certificate({ subject: 'root', key: keys.root.publicKey, by: 'stranger', extensions: [CA] })
  t.deepEqual(pinnedAnchors([ca, root, forged, renewed], pins), [root, renewed])
})

test('names that differ in case, white space and string type are one name, and others are not', (t) => {
  const spelt = (text: string, tag: number) =>
    makeLeaf({ issuer: { name: text, key: keys.ca.privateKey }, nameTag: tag })
  t.deepEqual(problems({ leaf: spelt(' CA ', 0x13) }), [])
  t.deepEqual(problems({ leaf: spelt('c a', 0x0c) }), ['issuer_missing'])
  t.deepEqual(problems({ leaf: spelt('ca', 0x1e) }), ['issuer_missing'])
})

test('no byte of a certificate can be changed unnoticed', (t) => {
  for (const good of [
    leaf.der,
    makeLeaf({ extensions: [{ oid: '2.5.29.15', value: der(3, Uint8Array.of(7, 0x80)) }] }).der,
  ]) {
    for (let at = 0; at < good.length; at++) {
      for (const flip of [0x01, 0x20, 0x80]) {
        try {
          const changed = parseCertificate(good.with(at, (good[at] ?? 0) ^ flip))
          t.not(problems({ leaf: changed }).length, 0, `byte ${at}`)
        } catch (error) {
          t.true(error instanceof CaissonError, `byte ${at}: ${String(error)}`)
        }
      }
    }
  }
})
