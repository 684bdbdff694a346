/** Layer encryption without files: recorded packets, and the primitives held to Wycheproof and RFC 7520. */
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { encryptionAnnotations, parseLayerEncryption, plainAnnotations } from '#image/encryption/annotations'
import { openJwe, parseJwe, sealJwe } from '#image/encryption/jwe'
import { decryptLayer, encryptLayer } from '#image/encryption/layer-stream'
import {
  encodePrivateOptions,
  encodePublicOptions,
  nonceOf,
  parsePrivateOptions,
  parsePublicOptions,
} from '#image/encryption/options'
import { openKeyPacket, parseKeyPacket } from '#image/encryption/packet'
import { packetUnwrapper, unwrapLayerKey } from '#image/encryption/unwrap'
import { nodeLayerCipher } from '#image/node/layer-cipher'
import { openEnvelope, parseEnvelope, sealEnvelope } from '#image/node/pkcs7'
import { fromBase64 } from '#protocol/encoding'
import { nodeCrypto } from '#protocol/node/crypto'
import type { Descriptor } from '#protocol/oci/descriptor'
import { CA, issueCertificate } from '../../fixtures/x509/issue.ts'
import { damaged, refusesOrKeeps } from '../parser-property.ts'
import { bytes, sha256 } from './fixtures.ts'

const VECTORS = join(import.meta.dirname, '../../vectors/ocicrypt')
const json = (path: string) => JSON.parse(readFileSync(join(VECTORS, path), 'utf8'))
const ENGINES = { cipher: nodeLayerCipher, crypto: nodeCrypto }

for (const { name, annotation_packet, kek_b64, pubopts, layer, plaintext } of json('_expected/wrapped-keys.json')
  .coco_packets) {
  test(`a packet of Confidential Containers opens: ${name}`, async (t) => {
    const packet = parseKeyPacket(bytes(JSON.stringify(annotation_packet)), 'packet')
    t.is(packet.keyId, annotation_packet.kid)
    const key = fromBase64(kek_b64, 'key')
    const options = openKeyPacket(nodeLayerCipher, packet, key, 'packet')
    t.deepEqual(JSON.parse(new TextDecoder().decode(options)), plaintext)
    const other = key.with(0, (key[0] ?? 0) ^ 1)
    t.throws(() => openKeyPacket(nodeLayerCipher, packet, other, 'packet'), { code: 'ERR_LAYER_KEY' })
    t.throws(() => openKeyPacket(nodeLayerCipher, packet, key.subarray(1), 'packet'), { code: 'ERR_LAYER_KEY' })
    if (layer === null) return
    const annotations = encryptionAnnotations(bytes(JSON.stringify(pubopts)), [
      { scheme: 'provider.attestation-agent', bytes: bytes(JSON.stringify(annotation_packet)) },
    ])
    const descriptor = { ...layer, annotations: new Map(Object.entries(annotations)) } as Descriptor
    const encryption = parseLayerEncryption(descriptor, 'layer')
    if (encryption === undefined) return t.fail()
    t.is(encryption.mediaType, 'application/vnd.oci.image.layer.v1.tar+gzip')
    const asked: string[] = []
    const keys = packetUnwrapper(nodeLayerCipher, (uri) => {
      asked.push(uri)
      return Promise.resolve(released)
    })
    const released = Uint8Array.from(key)
    const secret = await unwrapLayerKey(encryption, [keys], 'layer')
    t.deepEqual(released, new Uint8Array(key.length), 'the released key is wiped once it has been used')
    t.deepEqual(Buffer.from(secret.key).toString('base64'), plaintext.symkey)
    t.deepEqual(Buffer.from(secret.nonce).toString('base64'), plaintext.cipheroptions.nonce)
    t.deepEqual(asked, [annotation_packet.kid])
  })
}

const PACKET = {
  kid: 'kbs:///default/key/1',
  wrapped_data: Buffer.alloc(32).toString('base64'),
  iv: Buffer.alloc(12).toString('base64'),
  wrap_type: 'A256GCM',
}

test('packets of other providers, unprotected ciphers and unknown versions are refused by name', (t) => {
  const parse = (more: object) => parseKeyPacket(bytes(JSON.stringify({ ...PACKET, ...more })), 'packet')
  t.notThrows(() => parse({ version: '0.1.0', provider: 'kbs', provider_settings: {}, annotations: {} }))
  for (const more of [{ wrap_type: 'A256CTR' }, { provider: 'aliyun' }, { version: '1.0.0' }]) {
    t.throws(() => parse(more), { code: 'ERR_LAYER_KEY_UNSUPPORTED' })
  }
  for (const more of [{ kid: '/default/key/1' }, { kid: 'kbs:///../key/1' }, { kid: 'kbs:///a/b' }, { iv: 'AAAA' }]) {
    t.throws(() => parse(more), { code: 'ERR_LAYER_KEY_PACKET' })
  }
})

async function* chunks(content: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += size) yield content.subarray(at, at + size)
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const chunk of stream) parts.push(Uint8Array.from(chunk))
  return Buffer.concat(parts)
}

async function sealed(content: Uint8Array, size = 1000) {
  const [key, nonce] = [randomBytes(32), randomBytes(16)]
  const stream = encryptLayer(chunks(content, size), { key, nonce }, ENGINES)
  const ciphertext = await collect(stream.body)
  return { key, nonce, ciphertext, ...stream.finish() }
}

test('what is encrypted decrypts to the same bytes, however both streams are cut', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), fc.integer({ min: 1, max: 700 }), async (content, size) => {
      const { key, nonce, hmac, ciphertext, digest, plainDigest } = await sealed(content, size)
      const secret = { key, nonce, hmac, digest: plainDigest }
      const input = { secret, digest, what: 'layer' }
      const opened = await collect(decryptLayer(chunks(ciphertext, 701 - size), input, ENGINES))
      return opened.equals(content) && digest === sha256(ciphertext) && plainDigest === sha256(content)
    }),
    { numRuns: 50 },
  )
  t.pass()
})

test('a layer with a bit changed, cut, or longer ends in an error, not as a layer', async (t) => {
  const { key, nonce, hmac, ciphertext } = await sealed(randomBytes(3000))
  const end = async (changed: Uint8Array) => {
    // The registry names its digest as it likes: only the HMAC tells.
    const input = { secret: { key, nonce, hmac, digest: undefined }, digest: sha256(changed), what: 'layer' }
    return await collect(decryptLayer(chunks(changed, 100), input, ENGINES))
  }
  t.is((await end(ciphertext)).length, 3000)
  for (const changed of [
    ciphertext.subarray(0, 2999),
    Buffer.concat([ciphertext, Buffer.alloc(1)]),
    Buffer.from(ciphertext.with(1500, (ciphertext[1500] ?? 0) ^ 4)),
    Buffer.alloc(0),
  ]) {
    await t.throwsAsync(end(changed), { code: 'ERR_LAYER_HMAC' })
  }
  const wrongName = { secret: { key, nonce, hmac, digest: undefined }, digest: sha256('x'), what: 'layer' }
  await t.throwsAsync(collect(decryptLayer(chunks(ciphertext, 100), wrongName, ENGINES)), {
    code: 'ERR_DIGEST_MISMATCH',
  })
})

test('a nonce in the open may repeat the wrapped one, not replace it, and alone is held by the digest', async (t) => {
  const { key, hmac, plainDigest } = await sealed(randomBytes(10))
  const open = { hmac, nonce: Buffer.alloc(16, 1) }
  const wrapped = { key, digest: plainDigest, nonce: Buffer.alloc(16, 2) }
  t.deepEqual(nonceOf({ ...open, nonce: wrapped.nonce }, wrapped, 'layer'), wrapped.nonce)
  t.throws(() => nonceOf(open, wrapped, 'layer'), { code: 'ERR_LAYER_ENCRYPTION' })
  t.throws(() => nonceOf({ hmac, nonce: undefined }, { ...wrapped, nonce: undefined }, 'layer'), {
    code: 'ERR_LAYER_ENCRYPTION',
  })
  const options = JSON.stringify({ symkey: key.toString('base64'), digest: plainDigest, cipheroptions: {} })
  const encryption = { mediaType: 'x/y', options: open, keys: [{ scheme: 'test', bytes: Buffer.alloc(0) }] }
  const secret = await unwrapLayerKey(encryption, [() => Promise.resolve(bytes(options))], 'layer')
  t.is(secret.digest, plainDigest)
})

const OPTIONS = { key: Buffer.alloc(32, 7), digest: sha256('layer'), nonce: Buffer.alloc(16, 8) }

test('options and packets that are taken say what is written, and all others are refused', (t) => {
  const privateText = new TextDecoder().decode(encodePrivateOptions(OPTIONS))
  const publicText = new TextDecoder().decode(encodePublicOptions(Buffer.alloc(32, 9)))
  t.deepEqual(
    { ...parsePrivateOptions(bytes(privateText), 'options') },
    {
      ...OPTIONS,
      key: Uint8Array.from(OPTIONS.key),
      nonce: Uint8Array.from(OPTIONS.nonce),
    },
  )
  refusesOrKeeps(
    t,
    damaged(privateText),
    (input) => parsePrivateOptions(bytes(input), 'options'),
    ({ key, nonce }) => key.length === 32 && (nonce?.length ?? 16) === 16,
  )
  refusesOrKeeps(
    t,
    damaged(publicText),
    (input) => parsePublicOptions(bytes(input), 'options'),
    ({ hmac }) => hmac.length === 32,
  )
  refusesOrKeeps(
    t,
    damaged(JSON.stringify(PACKET)),
    (input) => parseKeyPacket(bytes(input), 'packet'),
    ({ keyId, iv }) => keyId.startsWith('kbs://') && iv.length === 12,
  )
})

test('annotations of a layer hold open options and at least one key, or are refused', (t) => {
  const annotations: Readonly<Record<string, string>> = {
    other: 'stays',
    ...encryptionAnnotations(encodePublicOptions(Buffer.alloc(32)), [
      { scheme: 'jwe', bytes: bytes('one') },
      { scheme: 'jwe', bytes: bytes('two') },
      { scheme: 'pgp', bytes: bytes('three') },
    ]),
  }
  const layer = (given: Readonly<Record<string, string>>) =>
    ({ mediaType: 'a/b+encrypted', annotations: new Map(Object.entries(given)) }) as unknown as Descriptor
  const parsed = parseLayerEncryption(layer(annotations), 'layer')
  t.deepEqual(
    parsed?.keys.map(({ scheme, bytes: key }) => [scheme, new TextDecoder().decode(key)]),
    [
      ['jwe', 'one'],
      ['jwe', 'two'],
      ['pgp', 'three'],
    ],
  )
  t.is(parsed?.mediaType, 'a/b')
  t.deepEqual(plainAnnotations(layer(annotations).annotations), { other: 'stays' })
  const { 'org.opencontainers.image.enc.pubopts': open = '', ...keys } = annotations
  t.throws(() => parseLayerEncryption(layer(keys), 'layer'), { code: 'ERR_LAYER_ENCRYPTION' })
  t.throws(() => parseLayerEncryption(layer({ 'org.opencontainers.image.enc.pubopts': open }), 'layer'), {
    code: 'ERR_LAYER_ENCRYPTION',
  })
  t.is(parseLayerEncryption({ ...layer(annotations), mediaType: 'a/b' }, 'layer'), undefined)
  refusesOrKeeps(
    t,
    damaged(open),
    (value) => parseLayerEncryption(layer({ ...annotations, 'org.opencontainers.image.enc.pubopts': value }), 'layer'),
    (value) => value?.options.hmac.length === 32,
  )
})

test('JWE: RFC 7520 5.2 opens in both JSON forms; algorithms that ocicrypt does not use are refused', async (t) => {
  const { input, output } = json('jose-cookbook/jwe/5_2.key_encryption_using_rsa-oaep_with_aes-gcm.json')
  const key = createPrivateKey({ key: input.key, format: 'jwk' })
  for (const form of [output.json, output.json_flat]) {
    t.is(new TextDecoder().decode(await openJwe(bytes(JSON.stringify(form)), [key], 'jwe')), input.plaintext)
    const spoilt = { ...form, tag: Buffer.alloc(16).toString('base64url') }
    await t.throwsAsync(openJwe(bytes(JSON.stringify(spoilt)), [key], 'jwe'), { code: 'ERR_LAYER_KEY' })
  }
  for (const name of ['5_6.direct_encryption_using_aes-gcm', '5_8.key_wrap_using_aes-keywrap_with_aes-gcm']) {
    const other = json(`jose-cookbook/jwe/${name}.json`)
    const form = bytes(JSON.stringify(other.output.json))
    await t.throwsAsync(openJwe(form, [key], 'jwe'), { code: 'ERR_LAYER_KEY' })
  }
})

test('a JWE for keys of both kinds opens for each, and its text is checked before any key is', async (t) => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  const sealedText = await sealJwe(bytes('options'), [
    { key: rsa.publicKey, algorithm: 'RSA-OAEP' },
    { key: ec.publicKey, algorithm: 'ECDH-ES+A256KW' },
  ])
  for (const { privateKey } of [rsa, ec]) {
    t.is(new TextDecoder().decode(await openJwe(sealedText, [privateKey], 'jwe')), 'options')
  }
  refusesOrKeeps(
    t,
    damaged(new TextDecoder().decode(sealedText)),
    (input) => parseJwe(bytes(input), 'jwe'),
    (value) => typeof value.ciphertext === 'string',
  )
})

test('a PKCS#7 envelope opens with the certificate’s key, and damaged ones are refused', (t) => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const issuer = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const certificate = issueCertificate({
    subject: 'test',
    key: rsa.publicKey,
    issuer: { name: 'test', key: issuer.privateKey },
    extensions: [CA],
  })
  const envelope = sealEnvelope(bytes('options'), [certificate])
  t.is(new TextDecoder().decode(openEnvelope(envelope, [rsa.privateKey], 'envelope')), 'options')
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  t.throws(() => openEnvelope(envelope, [other, issuer.privateKey], 'envelope'), { code: 'ERR_LAYER_KEY' })
  const spoilt = fc.tuple(fc.nat(envelope.length - 1), fc.nat(255)).map(([at, byte]) => envelope.with(at, byte))
  refusesOrKeeps(
    t,
    fc.oneof(spoilt, fc.uint8Array({ maxLength: 64 })),
    (input) => parseEnvelope(input, 'envelope'),
    ({ nonce }) => nonce.length === 12,
  )
})

interface Case {
  readonly tcId: number
  readonly result: 'valid' | 'invalid' | 'acceptable'
  readonly [name: string]: string | number | readonly string[]
}

function* wycheproof(file: string): Generator<{ group: Record<string, unknown>; test: Case }> {
  for (const { tests, ...group } of json(`wycheproof/${file}.json`).testGroups) {
    for (const one of tests) yield { group, test: one }
  }
}
const hex = (value: unknown): Buffer => Buffer.from(String(value), 'hex')

test('AES-256-GCM opens what Wycheproof calls valid, and nothing that it calls invalid', (t) => {
  let judged = 0
  for (const { group, test: one } of wycheproof('aes_gcm_test')) {
    if (group.keySize !== 256 || group.ivSize !== 96 || group.tagSize !== 128 || one.aad !== '') continue
    judged++
    const ciphertext = Buffer.concat([hex(one.ct), hex(one.tag)])
    const opened = nodeLayerCipher.openGcm(hex(one.key), hex(one.iv), ciphertext)
    if (one.result === 'invalid') t.is(opened, undefined, `${one.tcId}`)
    else t.deepEqual(Buffer.from(opened ?? []), hex(one.msg), `${one.tcId}`)
    if (one.result === 'valid') {
      t.deepEqual(Buffer.from(nodeLayerCipher.sealGcm(hex(one.key), hex(one.iv), hex(one.msg))), ciphertext)
    }
  }
  t.true(judged > 20)
})

test('HMAC-SHA256 and ECDSA give the verdicts of Wycheproof', (t) => {
  let judged = 0
  for (const { group, test: one } of wycheproof('hmac_sha256_test')) {
    if (group.keySize !== 256 || group.tagSize !== 256) continue
    judged++
    const hmac = nodeLayerCipher.hmacSha256(hex(one.key))
    hmac.update(hex(one.msg))
    t.is(nodeCrypto.timingSafeEqual(hmac.digest(), hex(one.tag)), one.result === 'valid', `${one.tcId}`)
  }
  for (const { group, test: one } of wycheproof('ecdsa_secp256r1_sha256_test')) {
    judged++
    const publicKey = String(group.publicKeyPem ?? group.keyPem)
    const input = { scheme: 'ecdsa', hash: 'sha256', publicKey, data: hex(one.msg), signature: hex(one.sig) } as const
    t.is(nodeCrypto.verify(input), one.result === 'valid', `${one.tcId}`)
  }
  t.true(judged > 100)
})

test('the primitives below JWE, RSA-OAEP and AES key wrap, give the verdicts of Wycheproof', async (t) => {
  const { subtle } = globalThis.crypto
  for (const { group, test: one } of wycheproof('rsa_oaep_2048_sha1_mgf1sha1_test')) {
    const privateKey = await subtle.importKey(
      'pkcs8',
      hex(group.privateKeyPkcs8),
      { name: 'RSA-OAEP', hash: 'SHA-1' },
      false,
      ['decrypt'],
    )
    const opening = subtle.decrypt({ name: 'RSA-OAEP', label: hex(one.label) }, privateKey, hex(one.ct))
    if (one.result === 'invalid') await t.throwsAsync(opening, undefined, `${one.tcId}`)
    else t.deepEqual(Buffer.from(await opening), hex(one.msg), `${one.tcId}`)
  }
  for (const { test: one } of wycheproof('aes_wrap_test')) {
    const message = hex(one.msg)
    if (![16, 24, 32].includes(message.length)) continue
    const key = await subtle.importKey('raw', hex(one.key), 'AES-KW', false, ['unwrapKey'])
    const usage = { name: 'HMAC', hash: 'SHA-256' }
    const opening = subtle.unwrapKey('raw', hex(one.ct), key, 'AES-KW', usage, true, ['sign'])
    if (one.result === 'invalid') await t.throwsAsync(opening, undefined, `${one.tcId}`)
    else t.deepEqual(Buffer.from(await subtle.exportKey('raw', await opening)), message, `${one.tcId}`)
  }
})
