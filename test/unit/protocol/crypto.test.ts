import { constants, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import test from 'ava'
import type { SignatureScheme } from '#protocol/crypto-provider'
import { nodeCrypto } from '#protocol/node/crypto'

const DATA = new TextEncoder().encode('signed')
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const ed = generateKeyPairSync('ed25519')

const SCHEMES: readonly (readonly [SignatureScheme, { publicKey: KeyObject }, Uint8Array])[] = [
  ['ecdsa', ec, sign('sha256', DATA, ec.privateKey)],
  ['ecdsa-p1363', ec, sign('sha256', DATA, { key: ec.privateKey, dsaEncoding: 'ieee-p1363' })],
  ['rsa-pkcs1', rsa, sign('sha256', DATA, rsa.privateKey)],
  [
    'rsa-pss',
    rsa,
    sign('sha256', DATA, { key: rsa.privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }),
  ],
  ['ed25519', ed, sign(null, DATA, ed.privateKey)],
]

test('each scheme verifies its own signatures, and no scheme those of another', (t) => {
  for (const [scheme] of SCHEMES) {
    for (const [made, { publicKey }, signature] of SCHEMES) {
      const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
      const der = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }))
      for (const key of [pem, der]) {
        const input = { scheme, hash: 'sha256', publicKey: key, data: DATA, signature } as const
        t.is(nodeCrypto.verify(input), scheme === made, `${scheme} of ${made}`)
        t.false(nodeCrypto.verify({ ...input, data: DATA.subarray(1) }))
        t.false(nodeCrypto.verify({ ...input, signature: signature.subarray(1) }))
        t.false(nodeCrypto.verify({ ...input, signature: new Uint8Array() }))
      }
    }
  }
})

test('a key that cannot be read is an error, not a mismatch', (t) => {
  for (const publicKey of ['', 'nonsense', new Uint8Array(), Uint8Array.of(0x30, 0x00)]) {
    const input = { scheme: 'ecdsa', hash: 'sha256', publicKey, data: DATA, signature: DATA } as const
    t.throws(() => nodeCrypto.verify(input), { code: 'ERR_PUBLIC_KEY' })
  }
})

test('hashes take their input in pieces; comparison is of length and content', (t) => {
  const hash = nodeCrypto.createHash('sha256')
  hash.update(DATA.subarray(0, 3))
  hash.update(DATA.subarray(3))
  const whole = nodeCrypto.createHash('sha256')
  whole.update(DATA)
  t.deepEqual(hash.digest(), whole.digest())
  t.true(nodeCrypto.timingSafeEqual(DATA, Uint8Array.from(DATA)))
  t.false(nodeCrypto.timingSafeEqual(DATA, DATA.subarray(1)))
  t.is(nodeCrypto.randomBytes(32).length, 32)
})
