import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { diffReferences } from '#attestation/measure/reference-diff'
import {
  parseReleaseManifest,
  RELEASE_PAYLOAD,
  readReleaseKey,
  signReleaseManifest,
} from '#attestation/measure/release-manifest'
import { CaissonError } from '#protocol/errors'
import { altered, damaged, refusesOrKeeps } from '../parser-property.ts'

const HEX = 'ab'.repeat(48)
const snp = (id: string): string =>
  JSON.stringify({ version: 1, platform: 'snp', id, measurements: [{ vcpus: 1, measurement: HEX }] })
const RELEASE = { release: '2.4.0', documents: [snp('web'), snp('db')] }
const MAKER = generateKeyPairSync('ed25519')

const KEYS: Readonly<Record<string, { privateKey: KeyObject; publicKey: KeyObject }>> = {
  Ed25519: MAKER,
  'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  'P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  RSA: generateKeyPairSync('rsa', { modulusLength: 2048 }),
}
for (const [name, { privateKey, publicKey }] of Object.entries(KEYS)) {
  test(`a release that was signed with a key of ${name} is read with that key, and with no other`, (t) => {
    const manifest = signReleaseManifest(RELEASE, privateKey)
    const pem = publicKey.export({ format: 'pem', type: 'spki' }).toString()
    t.deepEqual(parseReleaseManifest(manifest, readReleaseKey(pem)), RELEASE)
    const stranger = generateKeyPairSync('ed25519').publicKey
    t.throws(() => parseReleaseManifest(manifest, stranger), { code: 'ERR_RELEASE_SIGNATURE' })
  })
}

test('keys that sign no releases are refused', (t) => {
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey
  const agreement = generateKeyPairSync('x25519').publicKey
  for (const key of [weak, agreement]) {
    const pem = key.export({ format: 'pem', type: 'spki' }).toString()
    t.throws(() => readReleaseKey(pem), { code: 'ERR_RELEASE_KEY' })
  }
  t.throws(() => readReleaseKey('-----BEGIN'), { code: 'ERR_RELEASE_KEY' })
})

test('a release that could not be registered is not signed', (t) => {
  const sign = (release: string, documents: readonly string[]) => () =>
    signReleaseManifest({ release, documents }, MAKER.privateKey)
  t.throws(sign('2.4.0', []), { code: 'ERR_RELEASE_MANIFEST' })
  t.throws(sign('two words', RELEASE.documents), { code: 'ERR_RELEASE_MANIFEST' })
  t.throws(sign('2.4.0', [snp('web'), snp('web')]), { code: 'ERR_RELEASE_MANIFEST' })
  t.throws(sign('2.4.0', ['{"id":"web"}']), { code: 'ERR_REFERENCE_VALUES' })
})

test('whatever is changed in a signed release, it is refused', (t) => {
  const manifest = signReleaseManifest({ ...RELEASE, documents: [snp('web')] }, MAKER.privateKey)
  const refused = (text: string, what: string): void =>
    void t.throws(() => parseReleaseManifest(text, MAKER.publicKey), { instanceOf: CaissonError }, what)
  const envelope = JSON.parse(manifest) as Record<string, unknown>
  const [start, end] = [manifest.indexOf('"payload":"') + 11, manifest.indexOf('","signatures"')]
  for (let at = start; at < end; at++) {
    const other = manifest[at] === 'A' ? 'B' : 'A'
    refused(`${manifest.slice(0, at)}${other}${manifest.slice(at + 1)}`, `character ${at}`)
  }
  refused(JSON.stringify({ ...envelope, payloadType: 'application/json' }), 'another type')
  refused(JSON.stringify({ ...envelope, signatures: [] }), 'no signature')
  refused(JSON.stringify({ ...envelope, extra: 1 }), 'more than there should be')
  t.is(envelope.payloadType, RELEASE_PAYLOAD)
})

test('a signed release is read, or refused', (t) => {
  const good = signReleaseManifest(RELEASE, MAKER.privateKey)
  const envelope = JSON.parse(good) as Record<string, unknown>
  const inputs = fc.oneof(
    damaged(good),
    altered(envelope).map((value) => JSON.stringify(value) ?? ''),
  )
  refusesOrKeeps(
    t,
    inputs,
    (text) => parseReleaseManifest(text, MAKER.publicKey),
    (value) => JSON.stringify(value) === JSON.stringify(RELEASE),
  )
})

test('differences between reference values are told member by member', (t) => {
  const before = { id: 'a', pcrs: { sha256: { 9: 'aa', 10: 'bb' } }, list: [1, 2], gone: {} }
  const after = { id: 'a', pcrs: { sha256: { 9: 'aa', 10: 'cc' } }, list: [1, 2, 3], new: null }
  t.deepEqual(diffReferences(before, after), [
    { member: 'gone', before: '{}', after: undefined },
    { member: 'list.2', before: undefined, after: '3' },
    { member: 'new', before: undefined, after: 'null' },
    { member: 'pcrs.sha256.10', before: '"bb"', after: '"cc"' },
  ])
  fc.assert(fc.property(fc.jsonValue(), (value) => diffReferences(value, structuredClone(value)).length === 0))
})
