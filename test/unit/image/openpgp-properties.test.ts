/** OpenPGP keyrings and signed messages with damage: refused with a code, or what they were. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { signatureEngines } from '#image/node/engines'
import { CaissonError } from '#protocol/errors'

const FIXTURES = 'test/vectors/image-sign/containers-image/signature/fixtures'
const KEYRING = new Uint8Array(readFileSync(`${FIXTURES}/public-key.gpg`))
const MESSAGE = new Uint8Array(readFileSync(`${FIXTURES}/dir-img-valid/signature-1`))
const NOW = new Date('2025-09-01T00:00:00Z')

const changed = (bytes: Uint8Array): fc.Arbitrary<Uint8Array> =>
  fc.oneof(
    fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, bits]) => {
      const copy = Uint8Array.from(bytes)
      copy[at] = (copy[at] ?? 0) ^ bits
      return copy
    }),
    fc.nat(bytes.length - 1).map((length) => bytes.slice(0, length)),
    fc.uint8Array({ maxLength: 64 }).map((more) => Uint8Array.of(...bytes, ...more)),
    fc.uint8Array({ maxLength: 200 }),
  )

async function orRefused<T>(action: Promise<T>): Promise<T | undefined> {
  try {
    return await action
  } catch (error) {
    if (error instanceof CaissonError && error.code.startsWith('ERR_IMAGE_')) return undefined
    throw error
  }
}

test('a signed message with damage is refused, or says exactly what was signed', async (t) => {
  const openpgp = await signatureEngines.openpgp()
  const keyring = await openpgp.readKeyring([KEYRING], 'policy')
  const whole = await openpgp.verify(MESSAGE, keyring, { now: NOW, what: 'signature' })
  await t.notThrowsAsync(
    fc.assert(
      fc.asyncProperty(changed(MESSAGE), async (message) => {
        const signed = await orRefused(openpgp.verify(message, keyring, { now: NOW, what: 'signature' }))
        return signed === undefined || Buffer.compare(signed.content, whole.content) === 0
      }),
      { numRuns: 200 },
    ),
  )
})

test('a keyring with damage is refused, or holds keys that accept nothing but what its owner signed', async (t) => {
  const openpgp = await signatureEngines.openpgp()
  const whole = await openpgp.verify(MESSAGE, await openpgp.readKeyring([KEYRING], 'policy'), {
    now: NOW,
    what: 'signature',
  })
  await t.notThrowsAsync(
    fc.assert(
      fc.asyncProperty(changed(KEYRING), async (bytes) => {
        const keyring = await orRefused(openpgp.readKeyring([bytes], 'policy'))
        if (keyring === undefined) return true
        const signed = await orRefused(openpgp.verify(MESSAGE, keyring, { now: NOW, what: 'signature' }))
        return signed === undefined || signed.signer === whole.signer
      }),
      { numRuns: 100 },
    ),
  )
})
