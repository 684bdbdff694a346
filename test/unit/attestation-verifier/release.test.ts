import test from 'ava'
import { parseReleaseCondition } from '#attestation/store/release-condition'
import { checkRelease } from '#attestation/verifier/release'

const DIGEST = `sha256:${'a'.repeat(64)}`
const OTHER = `sha256:${'b'.repeat(64)}`

function claims(status: unknown, images?: unknown) {
  return { submods: { cpu0: { 'ear.status': status } }, 'caisson.images': images }
}

test('conditions are "attested", or "images" with manifest digests, and nothing else', (t) => {
  t.deepEqual(parseReleaseCondition('attested', []), { kind: 'attested' })
  t.deepEqual(parseReleaseCondition('images', [DIGEST, DIGEST]), { kind: 'images', manifests: [DIGEST] })
  const wrong: [string, string[]][] = [
    ['', []],
    ['always', []],
    ['attested', [DIGEST]],
    ['images', []],
    ['images', ['sha256:short']],
    ['images', [DIGEST.toUpperCase()]],
    ['images', Array<string>(65).fill(DIGEST)],
  ]
  for (const [kind, manifests] of wrong) {
    t.throws(() => parseReleaseCondition(kind, manifests), { code: 'ERR_RELEASE_CONDITION' })
  }
})

for (const status of ['none', 'warning', 'contraindicated', undefined, 'AFFIRMING', ['affirming']]) {
  test(`a result of ${JSON.stringify(status)} gets nothing`, (t) => {
    t.throws(() => checkRelease({ kind: 'attested' }, claims(status)), { code: 'ERR_RELEASE_NOT_AFFIRMING' })
  })
}

test('an affirming result gets what is kept for attested guests', (t) => {
  t.notThrows(() => checkRelease({ kind: 'attested' }, claims('affirming')))
})

test('a resource for images needs a token that names one of them', (t) => {
  const condition = { kind: 'images', manifests: [DIGEST] } as const
  t.notThrows(() => checkRelease(condition, claims('affirming', [{ manifest: OTHER }, { manifest: DIGEST }])))
  for (const images of [undefined, [], [{ manifest: OTHER }], [DIGEST], 'x', [null], [{ manifest: [DIGEST] }]]) {
    t.throws(() => checkRelease(condition, claims('affirming', images)), { code: 'ERR_RELEASE_IMAGES' })
  }
})

test('claims with missing parts are refused, not crashed on', (t) => {
  for (const broken of [{}, { submods: null }, { submods: { cpu0: 3 } }, { submods: { __proto__: null } }]) {
    t.throws(() => checkRelease({ kind: 'attested' }, broken), { code: 'ERR_RELEASE_NOT_AFFIRMING' })
  }
})
