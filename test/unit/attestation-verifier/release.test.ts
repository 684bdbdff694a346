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

function tokenOf(reference: string | undefined, evidence: object = { measurement: 'ab', tcb: { microcode: 211 } }) {
  const annotated = { report_data: '00', init_data: '11', init_data_claims: {}, runtime_data_claims: {}, snp: evidence }
  const cpu0 = {
    'ear.status': 'affirming',
    'ear.trustworthiness-vector': { hardware: 2 },
    'ear.veraison.annotated-evidence': annotated,
  }
  return {
    submods: { cpu0 },
    'caisson.policy': 'prod',
    ...(reference === undefined ? {} : { 'caisson.reference': reference }),
  }
}

test('a resource that names reference values goes to their guests only', (t) => {
  const condition = parseReleaseCondition('attested', [], { references: ['web', 'web-next', 'web'] })
  t.deepEqual(condition, { kind: 'attested', references: ['web', 'web-next'] })
  t.notThrows(() => checkRelease(condition, tokenOf('web-next')))
  for (const token of [tokenOf('db'), tokenOf(undefined), { ...tokenOf('db'), 'caisson.reference': ['web'] }]) {
    t.throws(() => checkRelease(condition, token), { code: 'ERR_RELEASE_REFERENCE' })
  }
  t.throws(() => parseReleaseCondition('attested', [], { references: ['../web'] }), { code: 'ERR_REFERENCE_ID' })
})

for (const [require, holds] of [
  ['tee == "snp" && evidence.tcb.microcode >= 211', true],
  ['evidence.tcb.microcode >= 212', false],
  ['evidence.nothing == "x"', false],
  ['trust.hardware == 2 && policy == "prod" && reference == "web"', true],
  ['initdata == "11" && images.size() == 0', true],
  ['images.exists(image, image.manifest == "sha256:x")', false],
  ['claims["caisson.policy"] == "prod"', true],
  ['reference == "db"', false],
] as const) {
  test(`a resource with the condition ${require} is ${holds ? 'released' : 'kept'}`, (t) => {
    const condition = parseReleaseCondition('attested', [], { require })
    const check = () => checkRelease(condition, tokenOf('web'))
    if (holds) t.notThrows(check)
    else t.throws(check, { code: 'ERR_RELEASE_CLAIMS' })
  })
}

test('a condition on a claim that the token lacks keeps the resource', (t) => {
  const condition = parseReleaseCondition('attested', [], { require: 'reference != "db"' })
  t.throws(() => checkRelease(condition, tokenOf(undefined)), { code: 'ERR_RELEASE_CLAIMS' })
})

test('conditions that could never be answered are refused when the resource is stored', (t) => {
  for (const require of ['tee', 'tee == 3', 'unknown == "x"', 'tee.matches("s.*")', '((', 'x'.repeat(3000)]) {
    t.throws(() => parseReleaseCondition('attested', [], { require }), { code: 'ERR_CONDITION' })
  }
})
