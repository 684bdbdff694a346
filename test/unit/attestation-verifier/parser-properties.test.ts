import test from 'ava'
import fc from 'fast-check'
import { parseFiles } from '#attestation/collateral/answer-store'
import { parseBundle } from '#attestation/collateral/bundle'
import { parseReferenceDocument } from '#attestation/measure/reference-document'
import { parseSnpReferenceValues } from '#attestation/measure/snp/reference-values'
import { parseTdxReferenceValues } from '#attestation/measure/tdx/reference-values'
import { parsePolicyId } from '#attestation/store/policy-store'
import { parseReferenceId } from '#attestation/store/reference-store'
import { parseReleaseCondition } from '#attestation/store/release-condition'
import { parseResourcePath } from '#attestation/store/resource-store'
import { JsonFields } from '#protocol/json-fields'
import { damaged, refusesOrKeeps } from '../parser-property.ts'

test('the name of reference values leaves no room for paths or escapes', (t) => {
  refusesOrKeeps(
    t,
    damaged('guest-1.2_a'),
    parseReferenceId,
    (value, input) => value === input && /^[\w.-]{1,128}$/.test(value) && !value.startsWith('.'),
  )
})

test('a path of a resource has three segments, none of which leads elsewhere', (t) => {
  const segment = fc.oneof(damaged('type'), fc.constantFrom('..', '.', '', 'a/b', '%2e%2e'))
  refusesOrKeeps(t, fc.array(segment, { maxLength: 4 }), parseResourcePath, (value) => {
    const parts = value.split('/')
    return parts.length === 3 && parts.every((part) => part !== '' && !part.startsWith('.'))
  })
})

test('a release condition names known kinds and digests only', (t) => {
  const inputs = fc.tuple(
    fc.oneof(fc.constantFrom('attested', 'images'), fc.string()),
    fc.array(damaged(`sha256:${'a'.repeat(64)}`), { maxLength: 3 }),
  )
  refusesOrKeeps(
    t,
    inputs,
    ([kind, manifests]) => parseReleaseCondition(kind, manifests),
    (value, [kind]) =>
      value.kind === kind &&
      (value.kind === 'attested' || value.manifests.every((each) => /^sha256:[0-9a-f]{64}$/.test(each))),
  )
})

test('reference values are a document with a name, or refused', (t) => {
  refusesOrKeeps(t, damaged('{"id":"a"}'), parseReferenceDocument, ({ id }) => id !== '')
})

const HEX = 'ab'.repeat(48)

test('reference values of SNP guests have a launch digest for each number of vCPUs, each number once', (t) => {
  const good = {
    version: 1,
    platform: 'snp',
    id: 'web',
    measurements: [
      { vcpus: 1, measurement: HEX },
      { vcpus: 2, measurement: HEX },
    ],
    ovmf_hash: HEX,
    further_vcpu: HEX,
    cmdline: 'console=ttyS0',
  }
  refusesOrKeeps(t, damaged(JSON.stringify(good)), parseSnpReferenceValues, ({ id, variants }) => {
    const counts = variants.map(({ vcpus }) => vcpus)
    const whole = variants.every(({ measurement }) => /^[0-9a-f]{96}$/.test(measurement))
    return id !== '' && whole && counts.length > 0 && new Set(counts).size === counts.length
  })
  const one = { version: 1, platform: 'snp', id: 'web', vcpus: 4, measurement: HEX }
  t.deepEqual(parseSnpReferenceValues(JSON.stringify(one)).variants, [{ vcpus: 4, measurement: HEX }])
})

test('reference values of TDs name firmware, kernel and command line, or are refused', (t) => {
  const good = {
    version: 1,
    platform: 'tdx',
    id: 'web',
    measurement: HEX,
    mrtd: HEX,
    rtmr0: null,
    rtmr1: HEX,
    rtmr2: HEX,
    rtmr3: HEX,
    variants: [{ kernel: 'patched', separator: 'rtmr1', rtmr0: null, rtmr1: HEX, rtmr2: HEX, rtmr3: HEX }],
    events: [{ rtmr: 1, type: 'EV_SEPARATOR', description: 'x', digest: null }],
    cmdline: 'console=hvc0',
  }
  refusesOrKeeps(t, damaged(JSON.stringify(good)), parseTdxReferenceValues, ({ mrtd, variants }) =>
    [mrtd, ...variants.flatMap(({ rtmr1, rtmr2 }) => [rtmr1, rtmr2])].every((value) => /^[0-9a-f]{96}$/.test(value)),
  )
  t.throws(
    () => parseTdxReferenceValues(JSON.stringify({ ...good, variants: [{ ...good.variants[0], rtmr1: null }] })),
    {
      code: 'ERR_REFERENCE_VALUES',
    },
  )
})

test('the name of an appraisal policy leaves no room for paths or escapes', (t) => {
  refusesOrKeeps(t, damaged('prod-1.2_a'), parsePolicyId, (value) => /^[\w-][\w.-]{0,127}$/.test(value))
})

test('a bundle of collateral holds answers of AMD and Intel only', (t) => {
  const answers = [
    { url: 'https://kdsintf.amd.com/vcek/v1/Milan/crl', fetchedAt: 'x', files: [{ name: 'a', body: 'MIIB' }] },
  ]
  t.is(parseBundle(JSON.stringify({ version: 1, answers })).length, 1)
  for (const origin of [
    'https:kdsintf.amd.com',
    'https://KDSINTF.amd.com',
    'https://@kdsintf.amd.com',
    'https://a.b',
  ]) {
    const spelt = answers.map((answer) => ({ ...answer, url: answer.url.replace('https://kdsintf.amd.com', origin) }))
    t.throws(
      () => parseBundle(JSON.stringify({ version: 1, answers: spelt })),
      { code: 'ERR_COLLATERAL_BUNDLE' },
      origin,
    )
  }
  refusesOrKeeps(t, damaged(JSON.stringify({ version: 1, answers })), parseBundle, (value) =>
    value.every(({ url }) =>
      /^https:\/\/(kdsintf\.amd\.com|(api|certificates)\.trustedservices\.intel\.com)/.test(url),
    ),
  )
})

test('the files of a stored answer have names and bytes, or are refused', (t) => {
  const read = (text: string) =>
    parseFiles(JsonFields.parse(text, 'answer', { code: 'ERR_COLLATERAL_ANSWER', maxChars: 100_000 }))
  refusesOrKeeps(t, damaged('{"files":[{"name":"a","body":"MIIB"}]}'), read, (files) => files.length <= 8)
})
