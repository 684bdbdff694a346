/** Keys of tokens that come with certificates, in the scenarios that another KBS tests with. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import type { JWK } from 'jose'
import { verifyEndorsedKey } from '#attestation/token/endorsed-key'
import { parseCertificate } from '#attestation/x509/certificate'
import { parsePem } from '#attestation/x509/pem'

const read = (path: string): string => readFileSync(new URL(`../../vectors/${path}`, import.meta.url), 'utf8')

interface Scenario {
  readonly case: string
  readonly trust: string
  readonly jwk: string
  readonly ok: boolean
}
const {
  jwk_endorsement: scenarios,
  jwks,
}: { jwk_endorsement: readonly Scenario[]; jwks: { chain: string; expected: string } } = JSON.parse(
  read('kbs/_expected/trustee-tests.json'),
)

const anchorsOf = (path: string) => parsePem(read(path)).map(({ bytes }) => parseCertificate(bytes))
/** Within the validity of all certificates. */
const AT = new Date('2027-01-01')

for (const { case: name, trust, jwk, ok } of scenarios) {
  test(`a token’s key is ${ok ? 'believed' : 'refused'}: ${name}`, (t) => {
    const input = { jwk: JSON.parse(read(jwk)) as JWK, anchors: anchorsOf(trust), at: AT }
    if (ok) t.notThrows(() => verifyEndorsedKey(input))
    else t.throws(() => verifyEndorsedKey(input), { code: 'ERR_TOKEN_KEY_UNENDORSED' })
  })
}

test('all recorded scenarios are there, of both outcomes', (t) => {
  t.deepEqual(
    scenarios.map(({ ok }) => ok),
    [true, false, false, false],
  )
})

test('a published key is believed by its own certificate, not after it ended, and not with too many certificates', (t) => {
  const [jwk] = (JSON.parse(read(jwks.expected)) as { keys: JWK[] }).keys
  const anchors = anchorsOf(jwks.chain)
  if (jwk === undefined) throw new Error('no key')
  t.notThrows(() => verifyEndorsedKey({ jwk, anchors, at: AT }))
  const ended = new Date('2040-01-01')
  t.throws(() => verifyEndorsedKey({ jwk, anchors, at: ended }), { code: 'ERR_TOKEN_KEY_UNENDORSED' })
  t.throws(() => verifyEndorsedKey({ jwk, anchors: [], at: AT }), { code: 'ERR_TOKEN_KEY_UNENDORSED' })
  const many = { ...jwk, x5c: Array<string>(9).fill(jwk.x5c?.[0] ?? '') }
  t.throws(() => verifyEndorsedKey({ jwk: many, anchors, at: AT }), { code: 'ERR_TOKEN_KEY_UNENDORSED' })
  const other = { ...jwk, kty: 'oct' }
  t.throws(() => verifyEndorsedKey({ jwk: other, anchors, at: AT }), { code: 'ERR_TOKEN_KEY_UNENDORSED' })
})
