import { readFileSync } from 'node:fs'
import test from 'ava'
import { exportJWK, flattenedDecrypt, generateKeyPair } from 'jose'
import { createTeeKeyPair, openSealedResource } from '#attestation/client/sealed-resource'
import { aesKeyWrap, concatKdf, encryptToGuest } from '#attestation/verifier/jwe'
import type { TeePublicKey } from '#protocol/kbs-messages'

const PLAINTEXT = new TextEncoder().encode('the quick brown secret')
const vectors = new URL('../../vectors/ocicrypt/', import.meta.url)

function read(path: string): string {
  return readFileSync(new URL(path, vectors), 'utf8')
}

test('the key derivation gives the value of RFC 7518 appendix C', (t) => {
  const z = Uint8Array.of(
    ...[158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156],
    ...[251, 49, 110, 163, 218, 128, 106, 72, 246, 218, 167, 121, 140, 254, 144, 196],
  )
  const key = concatKdf(z, {
    algorithm: 'A128GCM',
    keyBits: 128,
    partyU: Buffer.from('Alice'),
    partyV: Buffer.from('Bob'),
  })
  t.is(Buffer.from(key).toString('base64url'), 'VqqN6vgjbSBcIijNcacQGg')
})

test('the key wrap gives the value of RFC 7520 section 5.8', (t) => {
  const vector: {
    input: { key: { k: string } }
    generated: { cek: string }
    encrypting_key: { encrypted_key: string }
  } = JSON.parse(read('jose-cookbook/jwe/5_8.key_wrap_using_aes-keywrap_with_aes-gcm.json'))
  const wrapped = aesKeyWrap(
    Buffer.from(vector.input.key.k, 'base64url'),
    Buffer.from(vector.generated.cek, 'base64url'),
  )
  t.is(Buffer.from(wrapped).toString('base64url'), vector.encrypting_key.encrypted_key)
})

test('the key wrap agrees with every valid Wycheproof vector', (t) => {
  const file: {
    testGroups: { tests: { tcId: number; key: string; msg: string; ct: string; result: string }[] }[]
  } = JSON.parse(read('wycheproof/aes_wrap_test.json'))
  const valid = file.testGroups.flatMap((group) => group.tests).filter(({ result }) => result === 'valid')
  t.true(valid.length > 30)
  for (const { tcId, key, msg, ct } of valid) {
    t.is(Buffer.from(aesKeyWrap(Buffer.from(key, 'hex'), Buffer.from(msg, 'hex'))).toString('hex'), ct, `tcId ${tcId}`)
  }
})

test('the protected header has the member order that receivers re-serialise', async (t) => {
  const { publicKey } = await createTeeKeyPair()
  const jwe = encryptToGuest(publicKey, PLAINTEXT)
  const header = Buffer.from(jwe.protected, 'base64url').toString()
  t.regex(
    header,
    /^\{"alg":"ECDH-ES\+A256KW","enc":"A256GCM","epk":\{"crv":"P-256","kty":"EC","x":"[\w-]{43}","y":"[\w-]{43}"\}\}$/,
  )
  t.deepEqual(Object.keys(jwe), ['protected', 'encrypted_key', 'iv', 'ciphertext', 'tag'])
})

test('the guest opens what was encrypted to its key, and nobody else does', async (t) => {
  const guest = await createTeeKeyPair()
  t.false(guest.privateKey.extractable)
  const body = Buffer.from(JSON.stringify(encryptToGuest(guest.publicKey, PLAINTEXT)))
  t.deepEqual(await openSealedResource(body, guest.privateKey), PLAINTEXT)
  const other = await createTeeKeyPair()
  await t.throwsAsync(openSealedResource(body, other.privateKey), { code: 'ERR_RESOURCE_SEAL' })
})

test('a resource changed in any of its parts does not open', async (t) => {
  const guest = await createTeeKeyPair()
  const jwe: Record<string, string> = { ...encryptToGuest(guest.publicKey, PLAINTEXT) }
  for (const name of Object.keys(jwe)) {
    const bytes = Buffer.from(jwe[name] ?? '', 'base64url')
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1
    const body = Buffer.from(JSON.stringify({ ...jwe, [name]: bytes.toString('base64url') }))
    await t.throwsAsync(openSealedResource(body, guest.privateKey), { code: 'ERR_RESOURCE_SEAL' }, name)
    const without = Buffer.from(JSON.stringify({ ...jwe, [name]: undefined }))
    await t.throwsAsync(openSealedResource(without, guest.privateKey), { code: 'ERR_VERIFIER_ANSWER' }, name)
  }
})

test('a P-521 key and an RSA key can be encrypted to', async (t) => {
  const ec = await generateKeyPair('ECDH-ES+A256KW', { crv: 'P-521', extractable: true })
  const { x = '', y = '' } = await exportJWK(ec.publicKey)
  const p521: TeePublicKey = { kty: 'EC', crv: 'P-521', alg: 'ECDH-ES+A256KW', x, y }
  t.deepEqual((await flattenedDecrypt(encryptToGuest(p521, PLAINTEXT), ec.privateKey)).plaintext, PLAINTEXT)
  const rsa = await generateKeyPair('RSA-OAEP-256', { extractable: true })
  const { n = '', e = '' } = await exportJWK(rsa.publicKey)
  const jwe = encryptToGuest({ kty: 'RSA', alg: 'RSA-OAEP-256', n, e }, PLAINTEXT)
  t.is(Buffer.from(jwe.protected, 'base64url').toString(), '{"alg":"RSA-OAEP-256","enc":"A256GCM"}')
  t.deepEqual((await flattenedDecrypt(jwe, rsa.privateKey)).plaintext, PLAINTEXT)
})

test('a point that is not on the curve is refused', async (t) => {
  const { publicKey } = await createTeeKeyPair()
  const y = Buffer.alloc(32, 1).toString('base64url')
  t.throws(() => encryptToGuest({ ...publicKey, y } as TeePublicKey, PLAINTEXT), { code: 'ERR_TEE_KEY' })
})
