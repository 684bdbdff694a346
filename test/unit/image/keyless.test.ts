/** Signatures by certificate: of a login, with a log's promise, and of an own authority. Roots are made by the test. */
import { createHash, type KeyObject, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { evaluateSignaturePolicy } from '#image/policy/evaluate'
import { parseSignaturePolicy } from '#image/policy/parse'
import {
  CERTIFICATE_ANNOTATION,
  CHAIN_ANNOTATION,
  type FoundCosign,
  REKOR_ANNOTATION,
  SIGNATURE_ANNOTATION,
} from '#image/signature/found'
import { encodePayload } from '#image/signature/payload'
import { canonicalJson } from '#protocol/canonical-json'
import { nodeCrypto } from '#protocol/node/crypto'
import { parseDigest } from '#protocol/oci/digest'
import { parseReference } from '#protocol/oci/reference'
import { der, objectId, sequence, text } from '../../fixtures/x509/encode-der.ts'
import { CA, CA_USAGE, type Extension, issueCertificate, newKey, pathLength } from '../../fixtures/x509/issue.ts'
import { sha256 } from './fixtures.ts'

const DIGEST = sha256('manifest')
const SIGNED_AT = new Date('2025-03-01T12:00:00Z')
const minutes = (count: number): Date => new Date(SIGNED_AT.getTime() + 60_000 * count)

const rootKey = newKey()
const middleKey = newKey()
const leafKey = newKey()
const logKey = newKey()
const otherKey = newKey()

const CODE_SIGNING: Extension = { oid: '2.5.29.37', value: sequence(objectId('1.3.6.1.5.5.7.3.3')) }
const ISSUER = 'https://login.example'
const EMAIL = 'joe@example.com'
const names = (...parts: readonly Uint8Array[]): Extension => ({
  oid: '2.5.29.17',
  critical: true,
  value: sequence(...parts),
})
const email = (value: string): Uint8Array => text(value, 0x81)
const issuerV1 = (value: string): Extension => ({ oid: '1.3.6.1.4.1.57264.1.1', value: Buffer.from(value) })
const issuerV2 = (value: string): Extension => ({ oid: '1.3.6.1.4.1.57264.1.8', value: text(value) })
const FULCIO_LEAF = [CODE_SIGNING, names(email(EMAIL)), issuerV1(ISSUER), issuerV2(ISSUER)]

const pem = (bytes: Uint8Array): string =>
  `-----BEGIN CERTIFICATE-----\n${Buffer.from(bytes).toString('base64')}\n-----END CERTIFICATE-----\n`
const publicPem = (key: KeyObject): string => String(key.export({ type: 'spki', format: 'pem' }))
const base64 = (value: string | Uint8Array): string => Buffer.from(value).toString('base64')

const root = issueCertificate({
  subject: 'root',
  key: rootKey.publicKey,
  issuer: { name: 'root', key: rootKey.privateKey },
  extensions: [CA, CA_USAGE],
})

interface Oddity {
  readonly leaf?: readonly Extension[]
  readonly notAfter?: Date
  readonly middle?: readonly Extension[]
  /** Who issued the intermediate authority. */
  readonly issuer?: KeyObject
  readonly loggedAt?: Date
  readonly loggedBy?: KeyObject
  readonly logged?: { readonly payload?: Uint8Array; readonly signature?: Uint8Array; readonly signer?: string }
  /** Who made the signature over the payload. */
  readonly signer?: KeyObject
}

function signature(oddity: Oddity = {}): FoundCosign {
  const payload = encodePayload({ manifestDigest: DIGEST, dockerReference: 'r.example/app:1' })
  const middle = issueCertificate({
    subject: 'middle',
    key: middleKey.publicKey,
    issuer: { name: 'root', key: oddity.issuer ?? rootKey.privateKey },
    extensions: oddity.middle ?? [CA, CA_USAGE, CODE_SIGNING],
  })
  const leaf = issueCertificate({
    subject: '',
    key: leafKey.publicKey,
    issuer: { name: 'middle', key: middleKey.privateKey },
    notBefore: SIGNED_AT,
    notAfter: oddity.notAfter ?? minutes(10),
    extensions: oddity.leaf ?? FULCIO_LEAF,
  })
  const made = sign('sha256', payload, oddity.signer ?? leafKey.privateKey)
  const { logged = {} } = oddity
  const entry = {
    apiVersion: '0.0.1',
    kind: 'hashedrekord',
    spec: {
      data: {
        hash: {
          algorithm: 'sha256',
          value: createHash('sha256')
            .update(logged.payload ?? payload)
            .digest('hex'),
        },
      },
      signature: {
        content: base64(logged.signature ?? made),
        publicKey: { content: base64(logged.signer ?? pem(leaf)) },
      },
    },
  }
  const promised = {
    body: base64(JSON.stringify(entry)),
    integratedTime: (oddity.loggedAt ?? minutes(1)).getTime() / 1000,
    logIndex: 7,
    logID: '00',
  }
  const timestamp = sign('sha256', Buffer.from(canonicalJson(promised)), oddity.loggedBy ?? logKey.privateKey)
  return {
    kind: 'cosign',
    payload,
    annotations: new Map([
      [SIGNATURE_ANNOTATION, base64(made)],
      [CERTIFICATE_ANNOTATION, pem(leaf)],
      [CHAIN_ANNOTATION, pem(middle) + pem(root)],
      [REKOR_ANNOTATION, JSON.stringify({ SignedEntryTimestamp: base64(timestamp), Payload: promised })],
    ]),
    source: 'signature 1',
  }
}

async function judge(requirement: object, found: FoundCosign, now?: Date): Promise<readonly string[]> {
  const { signers } = await evaluateSignaturePolicy({
    policy: parseSignaturePolicy(JSON.stringify({ default: [{ type: 'sigstoreSigned', ...requirement }] })),
    reference: parseReference('r.example/app:1'),
    digests: [DIGEST],
    signaturesOf: (_, kind) => Promise.resolve(kind === 'cosign' ? [found] : []),
    resolveKey: () => Promise.reject(new Error('no key by path')),
    crypto: nodeCrypto,
    ...(now === undefined ? {} : { now }),
  })
  return signers
}

const FULCIO = {
  fulcio: { caData: base64(pem(root)), oidcIssuer: ISSUER, subjectEmail: EMAIL },
  rekorPublicKeyData: base64(publicPem(logKey.publicKey)),
}

test('a login that Fulcio certified and a log recorded signs, years after its certificate ended', async (t) => {
  t.deepEqual(await judge(FULCIO, signature()), [`${EMAIL} of ${ISSUER}`])
  const logs = { rekorPublicKeyDatas: [otherKey, logKey].map((key) => base64(publicPem(key.publicKey))) }
  const { rekorPublicKeyData: _, ...rest } = FULCIO
  t.deepEqual(await judge({ ...rest, ...logs }, signature()), [`${EMAIL} of ${ISSUER}`])
  for (const oneIssuer of [issuerV1(ISSUER), issuerV2(ISSUER)]) {
    await t.notThrowsAsync(judge(FULCIO, signature({ leaf: [CODE_SIGNING, names(email(EMAIL)), oneIssuer] })))
  }
})

const REFUSED: readonly (readonly [string, Oddity, string])[] = [
  ['logged after the certificate ended', { loggedAt: minutes(11) }, 'ERR_IMAGE_CERTIFICATE'],
  ['logged before the certificate began', { loggedAt: minutes(-1) }, 'ERR_IMAGE_CERTIFICATE'],
  ['promised by another log', { loggedBy: otherKey.privateKey }, 'ERR_IMAGE_LOG_ENTRY'],
  ['an entry about another payload', { logged: { payload: Buffer.from('x') } }, 'ERR_IMAGE_LOG_ENTRY'],
  ['an entry about another signature', { logged: { signature: Buffer.from('x') } }, 'ERR_IMAGE_LOG_ENTRY'],
  ['an entry about another certificate', { logged: { signer: pem(root) } }, 'ERR_IMAGE_LOG_ENTRY'],
  ['an authority that another root made', { issuer: otherKey.privateKey }, 'ERR_IMAGE_CERTIFICATE'],
  ['an authority that is none', { middle: [CODE_SIGNING] }, 'ERR_IMAGE_CERTIFICATE'],
  ['an authority without the right to sign', { middle: [CA, usage(0x80)] }, 'ERR_IMAGE_CERTIFICATE'],
  ['an authority for servers', { middle: [CA, CA_USAGE, serverUsage()] }, 'ERR_IMAGE_CERTIFICATE'],
  ['an authority under name constraints', { middle: [CA, CA_USAGE, nameConstraints()] }, 'ERR_IMAGE_CERTIFICATE'],
  ['a certificate for servers', { leaf: [serverUsage(), ...FULCIO_LEAF.slice(1)] }, 'ERR_IMAGE_CERTIFICATE'],
  ['an unknown critical extension', { leaf: [...FULCIO_LEAF, unknown()] }, 'ERR_IMAGE_CERTIFICATE'],
  ['another login', { leaf: [CODE_SIGNING, names(email('eve@example.com')), issuerV2(ISSUER)] }, 'ERR_IMAGE_SIGNER'],
  ['another issuer', { leaf: [CODE_SIGNING, names(email(EMAIL)), issuerV2('https://other')] }, 'ERR_IMAGE_SIGNER'],
  [
    'the login as another kind of name',
    { leaf: [CODE_SIGNING, names(text(EMAIL, 0x86)), issuerV2(ISSUER)] },
    'ERR_IMAGE_SIGNER',
  ],
  ['no issuer', { leaf: [CODE_SIGNING, names(email(EMAIL))] }, 'ERR_IMAGE_CERTIFICATE'],
  [
    'two issuers',
    { leaf: [...FULCIO_LEAF.slice(0, 2), issuerV1('https://other'), issuerV2(ISSUER)] },
    'ERR_IMAGE_CERTIFICATE',
  ],
  ['a signature by another key', { signer: otherKey.privateKey }, 'ERR_IMAGE_SIGNATURE'],
]

for (const [title, oddity, code] of REFUSED) {
  test(`a keyless signature is refused: ${title}`, async (t) => {
    await t.throwsAsync(judge(FULCIO, signature(oddity)), { code })
  })
}

test('a keyless signature without its certificate or its log entry is refused', async (t) => {
  const found = signature()
  const without = (name: string): FoundCosign => {
    const annotations = new Map(found.annotations)
    annotations.delete(name)
    return { ...found, annotations }
  }
  await t.throwsAsync(judge(FULCIO, without(CERTIFICATE_ANNOTATION)), { code: 'ERR_IMAGE_SIGNATURE_FORMAT' })
  await t.throwsAsync(judge(FULCIO, without(CHAIN_ANNOTATION)), { code: 'ERR_IMAGE_CERTIFICATE' })
  await t.throwsAsync(judge(FULCIO, without(REKOR_ANNOTATION)), { code: 'ERR_IMAGE_LOG_ENTRY' })
  await t.throwsAsync(judge(FULCIO, without(SIGNATURE_ANNOTATION)), { code: 'ERR_IMAGE_SIGNATURE_FORMAT' })
})

test('an own authority: names and time decide, the root must be the policy’s', async (t) => {
  const leaf = [CODE_SIGNING, names(email(EMAIL), text('*.build.example', 0x82))]
  const pki = { caRootsData: base64(pem(root)), subjectEmail: EMAIL }
  const found = signature({ leaf })
  const now = minutes(5)
  t.deepEqual(await judge({ pki }, found, now), [`certificate of ${EMAIL}`])
  await t.notThrowsAsync(judge({ pki: { ...pki, subjectHostname: 'a.build.example' } }, found, now))
  const refused = async (more: object, at: Date, code: string) =>
    await t.throwsAsync(judge({ pki: { ...pki, ...more } }, found, at), { code })
  await refused({}, minutes(11), 'ERR_IMAGE_CERTIFICATE')
  await refused({ subjectEmail: 'eve@example.com' }, now, 'ERR_IMAGE_SIGNER')
  await refused({ subjectHostname: 'build.example' }, now, 'ERR_IMAGE_SIGNER')
  await refused({ subjectHostname: 'a.b.build.example' }, now, 'ERR_IMAGE_SIGNER')
  const other = { subject: 'root', key: otherKey.publicKey, issuer: { name: 'root', key: otherKey.privateKey } }
  await refused(
    { caRootsData: base64(pem(issueCertificate({ ...other, extensions: [CA] }))) },
    now,
    'ERR_IMAGE_CERTIFICATE',
  )
})

test('an authority that permits none below it cannot have one', async (t) => {
  const strict = issueCertificate({
    subject: 'root',
    key: rootKey.publicKey,
    issuer: { name: 'root', key: rootKey.privateKey },
    extensions: [pathLength(0), CA_USAGE],
  })
  const fulcio = { ...FULCIO.fulcio, caData: base64(pem(strict)) }
  await t.throwsAsync(judge({ ...FULCIO, fulcio }, signature()), {
    code: 'ERR_IMAGE_CERTIFICATE',
    message: /permits 0 authorities/,
  })
})

const FIXTURES = join(import.meta.dirname, '../../vectors/image-sign/containers-image/signature/fixtures')
const fixture = (name: string): string => readFileSync(join(FIXTURES, name), 'utf8')

test('certificate and log entry that the public service made hold, for whom they name', async (t) => {
  const payload = readFileSync(join(FIXTURES, 'rekor-payload'))
  const signed = JSON.parse(payload.toString()).critical
  const found: FoundCosign = {
    kind: 'cosign',
    payload,
    annotations: new Map([
      [SIGNATURE_ANNOTATION, fixture('rekor-sig')],
      [CERTIFICATE_ANNOTATION, fixture('fulcio-cert')],
      [CHAIN_ANNOTATION, fixture('fulcio-chain')],
      [REKOR_ANNOTATION, fixture('rekor-set')],
    ]),
    source: 'signature-1',
  }
  const judged = (fulcio: object) => {
    const requirement = {
      type: 'sigstoreSigned',
      fulcio: { caData: base64(fixture('fulcio_v1.crt.pem')), ...fulcio },
      rekorPublicKeyData: base64(fixture('rekor.pub')),
      signedIdentity: { type: 'matchRepository' },
    }
    return evaluateSignaturePolicy({
      policy: parseSignaturePolicy(JSON.stringify({ default: [requirement] })),
      reference: parseReference(signed.identity['docker-reference'], 'latest'),
      digests: [parseDigest(signed.image['docker-manifest-digest'], 'digest')],
      signaturesOf: () => Promise.resolve([found]),
      resolveKey: () => Promise.reject(new Error('no key by path')),
      crypto: nodeCrypto,
    })
  }
  const joe = { oidcIssuer: 'https://github.com/login/oauth', subjectEmail: 'mitr@redhat.com' }
  t.deepEqual((await judged(joe)).signers, ['mitr@redhat.com of https://github.com/login/oauth'])
  await t.throwsAsync(judged({ ...joe, subjectEmail: 'other@redhat.com' }), { code: 'ERR_IMAGE_SIGNER' })
  await t.throwsAsync(judged({ ...joe, oidcIssuer: 'https://accounts.google.com' }), { code: 'ERR_IMAGE_SIGNER' })
})

function usage(byte: number): Extension {
  return { oid: '2.5.29.15', critical: true, value: der(3, Uint8Array.of(1, byte)) }
}
function serverUsage(): Extension {
  return { oid: '2.5.29.37', value: sequence(objectId('1.3.6.1.5.5.7.3.1')) }
}
function nameConstraints(): Extension {
  return { oid: '2.5.29.30', critical: true, value: sequence() }
}
function unknown(): Extension {
  return { oid: '1.2.3.4', critical: true, value: sequence() }
}
