import { createPrivateKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import test from 'ava'
import { generateSigningKey } from '#image/node/sign'
import { evaluateSignaturePolicy } from '#image/policy/evaluate'
import { parseSignaturePolicy } from '#image/policy/parse'
import { type FoundCosign, SIGNATURE_ANNOTATION } from '#image/signature/found'
import { encodePayload, parsePayload } from '#image/signature/payload'
import { parseSigningKey } from '#image/signature/public-key'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Digest } from '#protocol/oci/digest'
import { parseReference } from '#protocol/oci/reference'
import { bytes, sha256 } from './fixtures.ts'

const DIGEST = sha256('manifest')
const INDEX = sha256('index')
const KEY = generateSigningKey()
const OTHER = generateSigningKey()
const REFERENCE = parseReference(`r.example/app@${DIGEST}`)

function found(payload: Uint8Array, signature: Uint8Array): FoundCosign {
  const annotations = new Map([[SIGNATURE_ANNOTATION, Buffer.from(signature).toString('base64')]])
  return { kind: 'cosign', payload, annotations, source: 'signature 1' }
}

function signature(more: { key?: string; digest?: Digest; name?: string; payload?: Uint8Array } = {}): FoundCosign {
  const { key = KEY.privatePem, digest = DIGEST, name = 'r.example/app:1' } = more
  const payload = more.payload ?? encodePayload({ manifestDigest: digest, dockerReference: name })
  return found(payload, sign(createPrivateKey(key).asymmetricKeyType === 'ed25519' ? null : 'sha256', payload, key))
}

interface Case {
  readonly signatures?: readonly FoundCosign[]
  readonly requirements?: readonly object[]
  readonly onIndex?: readonly FoundCosign[]
}

const SIGNED = { type: 'sigstoreSigned', keyData: Buffer.from(KEY.publicPem).toString('base64') }

async function judge({ signatures = [], requirements = [SIGNED], onIndex }: Case): Promise<unknown> {
  const policy = parseSignaturePolicy(JSON.stringify({ default: requirements }))
  return await evaluateSignaturePolicy({
    policy,
    reference: REFERENCE,
    digests: onIndex === undefined ? [DIGEST] : [DIGEST, INDEX],
    signaturesOf: (digest) => Promise.resolve(digest === DIGEST ? signatures : (onIndex ?? [])),
    resolveKey: (path) => Promise.resolve(path === 'kbs:///a/b/c' ? KEY.publicPem : 'no key'),
    crypto: nodeCrypto,
  })
}

test('one good signature admits, whatever stands beside it', async (t) => {
  await t.notThrowsAsync(judge({ signatures: [signature()] }))
  const bad = found(signature().payload, Uint8Array.of(1, 2, 3))
  await t.notThrowsAsync(judge({ signatures: [bad, signature({ key: OTHER.privatePem }), signature()] }))
})

test('any of several keys will do, and keys by path are fetched', async (t) => {
  const keyDatas = [OTHER, KEY].map(({ publicPem }) => Buffer.from(publicPem).toString('base64'))
  await t.notThrowsAsync(judge({ signatures: [signature()], requirements: [{ type: 'sigstoreSigned', keyDatas }] }))
  const byPath = { type: 'sigstoreSigned', keyPath: 'kbs:///a/b/c' }
  await t.notThrowsAsync(judge({ signatures: [signature()], requirements: [byPath] }))
  const nowhere = judge({ signatures: [signature()], requirements: [{ ...byPath, keyPath: '/other' }] })
  await t.throwsAsync(nowhere, { code: 'ERR_PUBLIC_KEY' })
})

test('a signature over the index vouches for the manifest it names', async (t) => {
  await t.notThrowsAsync(judge({ onIndex: [signature({ digest: INDEX })] }))
  await t.throwsAsync(judge({ onIndex: [signature({ digest: sha256('another') })] }), { code: 'ERR_IMAGE_SIGNATURE' })
})

test('what is not signed, by another key, for another image, under another name is refused', async (t) => {
  await t.throwsAsync(judge({}), { code: 'ERR_IMAGE_UNSIGNED' })
  await t.throwsAsync(judge({ signatures: [signature({ key: OTHER.privatePem })] }), { code: 'ERR_IMAGE_SIGNATURE' })
  await t.throwsAsync(judge({ signatures: [signature({ digest: sha256('x') })] }), { code: 'ERR_IMAGE_SIGNATURE' })
  const name = judge({ signatures: [signature({ name: 'r.example/other' })] })
  await t.throwsAsync(name, { code: 'ERR_IMAGE_IDENTITY', message: /signed as "r.example\/other"/ })
})

test('the error that is told is that of the signature that came furthest', async (t) => {
  const signatures = [
    signature({ key: OTHER.privatePem }),
    signature({ name: 'x.example/app' }),
    signature({ key: OTHER.privatePem }),
  ]
  await t.throwsAsync(judge({ signatures }), { code: 'ERR_IMAGE_IDENTITY' })
})

test('a payload is parsed only when its signature holds, and then strictly', async (t) => {
  const good = new TextDecoder().decode(encodePayload({ manifestDigest: DIGEST, dockerReference: 'r.example/app' }))
  const variants: readonly (readonly [string, string])[] = [
    [good.replace('"optional":null', '"optional":null,"more":1'), 'ERR_IMAGE_SIGNATURE_FORMAT'],
    [good.replace('"identity":', '"extra":1,"identity":'), 'ERR_IMAGE_SIGNATURE_FORMAT'],
    [good.replace('cosign container image signature', 'atomic container signature'), 'ERR_IMAGE_SIGNATURE_FORMAT'],
    [
      good.replace('"docker-manifest-digest"', '"docker-manifest-digest ":1,"docker-manifest-digest"'),
      'ERR_IMAGE_SIGNATURE_FORMAT',
    ],
    [good.replace('"type":', '"type":"x","type":'), 'ERR_IMAGE_SIGNATURE_FORMAT'],
    ['[]', 'ERR_IMAGE_SIGNATURE_FORMAT'],
    ['{}', 'ERR_IMAGE_SIGNATURE_FORMAT'],
  ]
  for (const [text, code] of variants) {
    await t.throwsAsync(judge({ signatures: [signature({ payload: bytes(text) })] }), { code }, text)
  }
  await t.throwsAsync(judge({ signatures: [found(bytes('nonsense'), Uint8Array.of(0))] }), {
    code: 'ERR_IMAGE_SIGNATURE',
  })
  t.deepEqual(parsePayload(bytes(good), 'payload'), { manifestDigest: DIGEST, dockerReference: 'r.example/app' })
})

test('every requirement of the list must hold', async (t) => {
  const accept = { type: 'insecureAcceptAnything' }
  await t.notThrowsAsync(judge({ requirements: [accept] }))
  await t.throwsAsync(judge({ requirements: [accept, SIGNED] }), { code: 'ERR_IMAGE_UNSIGNED' })
  await t.throwsAsync(judge({ requirements: [accept, { type: 'reject' }] }), { code: 'ERR_IMAGE_REJECTED' })
  const other = { type: 'sigstoreSigned', keyData: Buffer.from(OTHER.publicPem).toString('base64') }
  const both = [SIGNED, other]
  await t.throwsAsync(judge({ requirements: both, signatures: [signature()] }), { code: 'ERR_IMAGE_SIGNATURE' })
  const signatures = [signature(), signature({ key: OTHER.privatePem })]
  await t.notThrowsAsync(judge({ requirements: both, signatures }))
})

test('what is reserved for the future, or cannot be judged here, admits nothing', async (t) => {
  const refused = async (requirement: object) =>
    await t.throwsAsync(judge({ requirements: [requirement], signatures: [signature()] }), {
      code: 'ERR_IMAGE_POLICY_UNSUPPORTED',
    })
  await refused({ type: 'signedBy', keyType: 'X509Certificates', keyData: 'AAAA' })
  await refused({ type: 'signedBaseLayer', baseLayerIdentity: { type: 'matchExact' } })
  // Nobody gave this judge the part that reads OpenPGP.
  await refused({ type: 'signedBy', keyType: 'GPGKeys', keyData: 'AAAA' })
})

test('k of n signers: each counts once, whichever requirements they satisfy', async (t) => {
  const third = generateSigningKey()
  const by = (...pems: readonly string[]) => ({
    type: 'sigstoreSigned',
    keyDatas: pems.map((pem) => Buffer.from(pem).toString('base64')),
  })
  const twoOfThree = {
    type: 'caissonThreshold',
    count: 2,
    of: [by(KEY.publicPem), by(KEY.publicPem, OTHER.publicPem), by(third.publicPem)],
  }
  const judged = (...keys: readonly string[]) =>
    judge({ requirements: [twoOfThree], signatures: keys.map((key) => signature({ key })) })
  await t.notThrowsAsync(judged(KEY.privatePem, OTHER.privatePem))
  await t.notThrowsAsync(judged(OTHER.privatePem, third.privatePem))
  const once = { code: 'ERR_IMAGE_THRESHOLD', message: /demands 2 of 3 signers, found 1: key sha256:/ }
  await t.throwsAsync(judged(KEY.privatePem, KEY.privatePem), once)
  await t.throwsAsync(judged(third.privatePem), once)
  await t.throwsAsync(judged(), { code: 'ERR_IMAGE_THRESHOLD', message: /found 0$/ })
})

test('the key decides the algorithm: NIST curves, RSA from 2048 bits and Ed25519 sign, others are refused', async (t) => {
  const pair = (made: { publicKey: KeyObject; privateKey: KeyObject }) => ({
    publicPem: String(made.publicKey.export({ type: 'spki', format: 'pem' })),
    privatePem: String(made.privateKey.export({ type: 'pkcs8', format: 'pem' })),
  })
  const good = [
    generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    generateKeyPairSync('ec', { namedCurve: 'P-521' }),
    generateKeyPairSync('rsa', { modulusLength: 2048 }),
    generateKeyPairSync('ed25519'),
  ].map(pair)
  for (const { publicPem, privatePem } of good) {
    const requirements = [{ type: 'sigstoreSigned', keyData: publicPem }]
    await t.notThrowsAsync(judge({ requirements, signatures: [signature({ key: privatePem })] }))
    await t.throwsAsync(judge({ requirements, signatures: [signature()] }), { code: 'ERR_IMAGE_SIGNATURE' })
  }
  const bad = [
    generateKeyPairSync('rsa', { modulusLength: 1024 }),
    generateKeyPairSync('ec', { namedCurve: 'secp256k1' }),
    generateKeyPairSync('x25519'),
  ].map(pair)
  for (const { publicPem } of bad) {
    t.throws(() => parseSigningKey(publicPem, 'key'), { code: 'ERR_IMAGE_KEY_UNSUPPORTED' })
  }
  for (const key of ['', 'key', KEY.privatePem, KEY.publicPem + KEY.publicPem]) {
    t.throws(() => parseSigningKey(key, 'key'), { code: 'ERR_PUBLIC_KEY' })
  }
})
