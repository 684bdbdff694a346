import { generateKeyPairSync } from 'node:crypto'
import test from 'ava'
import fc from 'fast-check'
import { parseChallenges } from '#image/registry/challenge'
import { encodePayload, parsePayload } from '#image/signature/payload'
import { parseSigningKey } from '#image/signature/public-key'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

const PAYLOAD = { manifestDigest: `sha256:${'a'.repeat(64)}`, dockerReference: 'registry.example/app' } as const

test('a signed payload that is taken says the same when it is written again', (t) => {
  const text = new TextDecoder().decode(encodePayload(PAYLOAD))
  refusesOrKeeps(
    t,
    damaged(text),
    (input) => parsePayload(new TextEncoder().encode(input), 'payload'),
    (value) => {
      const { manifestDigest, dockerReference } = parsePayload(encodePayload(value), 'payload')
      return manifestDigest === value.manifestDigest && dockerReference === value.dockerReference
    },
  )
  t.deepEqual(parsePayload(encodePayload(PAYLOAD), 'payload'), PAYLOAD)
})

test('a key for signatures is a point on P-256 in one PEM, or refused', (t) => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = String(publicKey.export({ type: 'spki', format: 'pem' }))
  refusesOrKeeps(
    t,
    damaged(pem),
    (input) => parseSigningKey(input, 'key'),
    (value) => value.length === 91 && value[26] === 4,
  )
})

test('challenges have lower-case schemes, and parameters once', (t) => {
  const parts = fc.constantFrom('Bearer', 'Basic', ' ', ',', '=', '"', '\\', 'realm="https://a/b"', 'service=x', 'é')
  const inputs = fc.oneof(
    fc.array(parts).map((words) => words.join('')),
    damaged('Bearer realm="https://auth.example/token",service="registry",scope="repository:a:pull"'),
  )
  refusesOrKeeps(t, inputs, parseChallenges, (challenges) =>
    challenges.every(({ scheme, params }) => scheme === scheme.toLowerCase() && !params.has('')),
  )
})
