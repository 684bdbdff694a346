import { generateKeyPairSync, sign } from 'node:crypto'
import test from 'ava'
import { generateSigningKey } from '#image/node/sign'
import { evaluateSignaturePolicy } from '#image/policy/evaluate'
import { parseSignaturePolicy } from '#image/policy/parse'
import type { FoundSignature } from '#image/signature/cosign'
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

function signature(more: { key?: string; digest?: Digest; name?: string; payload?: Uint8Array } = {}): FoundSignature {
  const { key = KEY.privatePem, digest = DIGEST, name = 'r.example/app' } = more
  const payload = more.payload ?? encodePayload({ manifestDigest: digest, dockerReference: name })
  return { payload, signature: sign('sha256', payload, key) }
}

interface Case {
  readonly signatures?: readonly FoundSignature[]
  readonly requirements?: readonly object[]
  readonly onIndex?: readonly FoundSignature[]
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
  const bad = { ...signature(), signature: Uint8Array.of(1, 2, 3) }
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
    [good.replace('"type":', '"type":"x","type":'), 'ERR_JSON'],
    ['[]', 'ERR_IMAGE_DOCUMENT'],
    ['{}', 'ERR_IMAGE_SIGNATURE_FORMAT'],
  ]
  for (const [text, code] of variants) {
    await t.throwsAsync(judge({ signatures: [signature({ payload: bytes(text) })] }), { code }, text)
  }
  const unsigned = { payload: bytes('nonsense'), signature: Uint8Array.of(0) }
  await t.throwsAsync(judge({ signatures: [unsigned] }), { code: 'ERR_IMAGE_SIGNATURE' })
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

test('kinds of signature that are not supported yet are refused, never skipped', async (t) => {
  const keyless = { type: 'sigstoreSigned', rekorPublicKeyData: 'AAAA' }
  const requirements: readonly object[] = [
    { type: 'signedBy', keyType: 'GPGKeys', keyData: 'AAAA' },
    { ...keyless, fulcio: { caData: 'AAAA', oidcIssuer: 'i', subjectEmail: 'e' } },
    { type: 'sigstoreSigned', pki: { caRootsData: 'AAAA' } },
    { ...SIGNED, rekorPublicKeyData: 'AAAA' },
  ]
  for (const requirement of requirements) {
    const judged = judge({ requirements: [requirement], signatures: [signature()] })
    await t.throwsAsync(judged, { code: 'ERR_IMAGE_POLICY_UNSUPPORTED' })
  }
})

test('keys other than ECDSA on P-256 are refused by name', (t) => {
  const pem = (type: 'rsa' | 'ec', options: object): string =>
    (type === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: 2048, ...options })
      : generateKeyPairSync('ec', { namedCurve: 'P-384', ...options })
    ).publicKey
      .export({ type: 'spki', format: 'pem' })
      .toString()
  t.is(parseSigningKey(KEY.publicPem, 'key').length, 91)
  for (const key of [pem('rsa', {}), pem('ec', {})]) {
    t.throws(() => parseSigningKey(key, 'key'), { code: 'ERR_IMAGE_KEY_UNSUPPORTED' })
  }
  for (const key of ['', 'key', KEY.privatePem, KEY.publicPem + KEY.publicPem]) {
    t.throws(() => parseSigningKey(key, 'key'), { code: 'ERR_PUBLIC_KEY' })
  }
})
