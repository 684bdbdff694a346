import { generateKeyPairSync, sign, verify } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { derSignature, rawSignature } from '#attestation/x509/ecdsa-value'

const CURVES = { 'P-256': 32, 'P-384': 48, 'P-521': 66 } as const

for (const [curve, bytes] of Object.entries(CURVES)) {
  test(`an ECDSA signature of ${curve} means the same in both forms`, (t) => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: curve })
    for (let index = 0; index < 50; index++) {
      const data = Buffer.from(`message ${index}`)
      const raw = rawSignature(sign('sha256', data, privateKey), bytes)
      t.is(raw.length, 2 * bytes)
      t.true(verify('sha256', data, { key: publicKey, dsaEncoding: 'ieee-p1363' }, raw))
      t.true(verify('sha256', data, publicKey, derSignature(raw)))
      t.false(verify('sha256', Buffer.from('another'), publicKey, derSignature(raw)))
    }
  })

  test(`every pair of numbers of ${curve}’s length survives both ways`, (t) => {
    const zeros = fc.integer({ min: 0, max: bytes - 1 }) // short numbers are rare by chance
    const number = fc.tuple(fc.uint8Array({ minLength: bytes, maxLength: bytes }), zeros).map(([digits, count]) => {
      digits.fill(0, 0, count)
      return digits
    })
    fc.assert(
      fc.property(number, number, (r, s) => {
        const raw = Uint8Array.from([...r, ...s])
        t.deepEqual(rawSignature(derSignature(raw), bytes), raw)
      }),
    )
  })
}
