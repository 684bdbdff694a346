import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { identityMatches } from '#image/policy/identity'
import { parseSignaturePolicy } from '#image/policy/parse'
import type { IdentityRule } from '#image/policy/policy'
import { requirementsFor, scopesOf } from '#image/policy/scopes'
import { parseReference } from '#protocol/oci/reference'
import { bytes } from './fixtures.ts'

const PEM = '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n'
const KEY_DATA = Buffer.from(PEM).toString('base64')
const HEX = 'ab'.repeat(32)

function policy(requirement: object): string {
  return JSON.stringify({ default: [requirement] })
}

test('scopes of every transport parse, each under its own name', (t) => {
  const parsed = parseSignaturePolicy(
    JSON.stringify({
      default: [{ type: 'reject' }],
      transports: {
        docker: {
          'r.example/a': [{ type: 'sigstoreSigned', keyData: KEY_DATA }],
          '': [{ type: 'insecureAcceptAnything' }],
        },
        'docker-daemon': { '': [{ type: 'insecureAcceptAnything' }] },
      },
    }),
  )
  t.deepEqual(parsed.default, [{ type: 'reject' }])
  t.deepEqual(parsed.docker.get('r.example/a'), [
    {
      type: 'sigstoreSigned',
      by: { kind: 'keys', keys: [{ kind: 'inline', bytes: bytes(PEM) }] },
      rekor: [],
      identity: { type: 'matchRepoDigestOrExact' },
    },
  ])
  t.deepEqual([...parsed.docker.keys()], ['r.example/a', ''])
  t.deepEqual([...parsed.transports.keys()], ['docker-daemon'])
})

test('keys come inline, as base64 or as PEM, or by path', (t) => {
  const keys = (members: object) => {
    const [requirement] = parseSignaturePolicy(policy({ type: 'sigstoreSigned', ...members })).default
    return requirement?.type === 'sigstoreSigned' && requirement.by.kind === 'keys' ? requirement.by.keys : undefined
  }
  const inline = { kind: 'inline', bytes: bytes(PEM) } as const
  t.deepEqual(keys({ keyData: KEY_DATA }), [inline])
  t.deepEqual(keys({ keyData: PEM }), [inline])
  t.deepEqual(keys({ keyDatas: [KEY_DATA, PEM] }), [inline, inline])
  t.deepEqual(keys({ keyPath: 'kbs:///default/cosign-public-key/test' }), [
    { kind: 'path', path: 'kbs:///default/cosign-public-key/test' },
  ])
  t.deepEqual(keys({ keyPaths: ['/a', '/b'] })?.length, 2)
  // Go's base64 skips line ends, so others' tools write them.
  t.deepEqual(keys({ keyData: KEY_DATA.replace(/(.{20})/g, '$1\n') }), [inline])
})

const SIGSTORE = { type: 'sigstoreSigned', keyData: KEY_DATA }
const GPG = { type: 'signedBy', keyType: 'GPGKeys' }
const PKI = { caRootsData: 'AAAA', subjectEmail: 'a@b' }
const FULCIO = { caData: 'AAAA', oidcIssuer: 'https://issuer', subjectEmail: 'a@b' }

function transport(name: string, scope: string): string {
  return JSON.stringify({ default: [{ type: 'reject' }], transports: { [name]: { [scope]: [{ type: 'reject' }] } } })
}

const REFUSED: readonly (readonly [string, string])[] = [
  ['no default', '{}'],
  ['no default, only transports', '{"transports": {}}'],
  ['an empty list', '{"default": []}'],
  ['a default that is no list', '{"default": {"type": "reject"}}'],
  ['an unknown member at the top', '{"default": [{"type": "reject"}], "defaults": []}'],
  ['an unknown requirement', policy({ type: 'accept' })],
  ['a requirement without type', policy({})],
  ['an unknown member of a requirement', policy({ type: 'reject', because: 'x' })],
  ['a key where none belongs', policy({ type: 'insecureAcceptAnything', keyData: KEY_DATA })],
  ['no key', policy({ type: 'sigstoreSigned' })],
  ['two kinds of key', policy({ ...SIGSTORE, keyPath: '/a' })],
  ['an empty list of keys', policy({ type: 'sigstoreSigned', keyDatas: [] })],
  ['a key that is no text', policy({ type: 'sigstoreSigned', keyPath: 1 })],
  ['two rekor keys', policy({ ...SIGSTORE, rekorPublicKeyData: 'A', rekorPublicKeyPath: 'B' })],
  ['fulcio without a rekor key', policy({ type: 'sigstoreSigned', fulcio: FULCIO })],
  [
    'fulcio without issuer',
    policy({ type: 'sigstoreSigned', fulcio: { caData: 'A', subjectEmail: 'a' }, rekorPublicKeyData: 'A' }),
  ],
  ['pki without a subject', policy({ type: 'sigstoreSigned', pki: { caRootsData: 'AAAA' } })],
  [
    'pki with two kinds of intermediates',
    policy({ type: 'sigstoreSigned', pki: { ...PKI, caIntermediatesData: 'AAAA', caIntermediatesPath: '/a' } }),
  ],
  ['a base layer without identity', policy({ type: 'signedBaseLayer' })],
  ['identities without a trusted root', policy({ type: 'caissonBundle', identities: [{ issuer: 'i', subject: 's' }] })],
  [
    'an identity with two subjects',
    policy({
      type: 'caissonBundle',
      trustedRootPath: '/a',
      identities: [{ issuer: 'i', subject: 's', subjectPrefix: 's' }],
    }),
  ],
  ['a threshold of none', policy({ type: 'caissonThreshold', count: 0, of: [SIGSTORE] })],
  ['a threshold above the number of signers', policy({ type: 'caissonThreshold', count: 2, of: [SIGSTORE] })],
  ['a threshold of no signers', policy({ type: 'caissonThreshold', count: 1, of: [{ type: 'reject' }] })],
  ['key data that is not base64', policy({ type: 'sigstoreSigned', keyData: '?' })],
  ['pki with a rekor key', policy({ type: 'sigstoreSigned', pki: PKI, rekorPublicKeyData: 'AAAA' })],
  ['signedBy without keyType', policy({ type: 'signedBy', keyData: 'A' })],
  ['signedBy without key', policy(GPG)],
  ['an unknown identity rule', policy({ ...SIGSTORE, signedIdentity: { type: 'any' } })],
  [
    'an unknown member of an identity rule',
    policy({ ...SIGSTORE, signedIdentity: { type: 'matchExact', prefix: 'a' } }),
  ],
  [
    'exactReference without tag',
    policy({ ...SIGSTORE, signedIdentity: { type: 'exactReference', dockerReference: 'a.b/c' } }),
  ],
  [
    'exactRepository with tag',
    policy({ ...SIGSTORE, signedIdentity: { type: 'exactRepository', dockerRepository: 'a.b/c:1' } }),
  ],
  [
    'remapIdentity without signedPrefix',
    policy({ ...SIGSTORE, signedIdentity: { type: 'remapIdentity', prefix: 'a.b' } }),
  ],
  ['an empty list in a scope', '{"default": [{"type": "reject"}], "transports": {"docker": {"a.b": []}}}'],
  [
    'a scope that no image has',
    '{"default": [{"type": "reject"}], "transports": {"docker": {"https://a.b": [{"type": "reject"}]}}}',
  ],
  [
    'a wildcard with a path',
    '{"default": [{"type": "reject"}], "transports": {"docker": {"*.b/c": [{"type": "reject"}]}}}',
  ],
  ['a folder that is not absolute', transport('dir', 'a/b')],
  ['a folder that is not canonical', transport('oci', '/a/../b')],
  ['the root folder, which is the scope ""', transport('dir', '/')],
  ['a scope where a transport has none', transport('docker-archive', '/a')],
  ['a mistake under another transport', '{"default": [{"type": "reject"}], "transports": {"dir": {"/a": [{}]}}}'],
]

for (const [title, text] of REFUSED) {
  test(`a policy is refused as a whole: ${title}`, (t) => {
    t.throws(() => parseSignaturePolicy(text), { code: 'ERR_IMAGE_POLICY' })
  })
}

test('policies of other projects parse', (t) => {
  const vectors = join(import.meta.dirname, '../../vectors/image-sign')
  const scopes = [
    ['containers-image/default-policy.json', 0],
    ['containers-image/signature/fixtures/policy.json', 14],
    ['image-rs/image-rs/test_data/signature/policy.json', 6],
  ] as const
  for (const [path, count] of scopes) {
    t.is(parseSignaturePolicy(readFileSync(join(vectors, path))).docker.size, count, path)
  }
})

test('a policy with a member twice is refused with its place', (t) => {
  const text = '{"default": [{"type": "reject"}],\n "default": [{"type": "insecureAcceptAnything"}]}'
  t.throws(() => parseSignaturePolicy(text), {
    code: 'ERR_JSON',
    message: /line 2, column 2: duplicate member "default"/,
  })
})

test('a policy cut anywhere is refused, and arbitrary JSON throws nothing unexpected', (t) => {
  const text = JSON.stringify({ default: [SIGSTORE], transports: { docker: { 'a.b/c': [{ type: 'reject' }] } } })
  for (let length = 0; length < text.length; length++) {
    t.throws(() => parseSignaturePolicy(text.slice(0, length)), { code: 'ERR_JSON' })
  }
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const error = t.throws(() => parseSignaturePolicy(JSON.stringify({ default: [value] })))
      t.true(['ERR_IMAGE_POLICY', 'ERR_BASE64'].includes((error as { code?: string }).code ?? ''))
    }),
  )
})

test('scopes go from the full reference over its parents to everything', (t) => {
  t.deepEqual(scopesOf(parseReference('sub.r.example:5000/a/b/c:1')), [
    'sub.r.example:5000/a/b/c:1',
    'sub.r.example:5000/a/b/c',
    'sub.r.example:5000/a/b',
    'sub.r.example:5000/a',
    'sub.r.example:5000',
    '*.r.example',
    '*.example',
    '',
  ])
  // The digest decides: a tag beside it does not select another rule.
  t.is(scopesOf(parseReference(`r.example/a:1@sha256:${HEX}`))[0], `r.example/a@sha256:${HEX}`)
})

test('an image in a folder is judged by the folder, its parents, or everything', (t) => {
  const reject = [{ type: 'reject' }]
  const text = { default: reject, transports: { dir: { '/a/b': reject, '': reject }, oci: { '/a': reject } } }
  const parsed = parseSignaturePolicy(JSON.stringify(text))
  const place = (name: 'dir' | 'oci', path: string) => requirementsFor(parsed, { transport: name, path }).place
  t.is(place('dir', '/a/b/c'), 'dir["/a/b"]')
  t.is(place('dir', '/a/bc'), 'dir[""]')
  t.is(place('oci', '/a/b'), 'oci["/a"]')
  t.is(place('oci', '/b'), 'default')
  // Without a name only the rules that name one themselves can hold.
  t.false(identityMatches({ type: 'matchRepository' }, undefined, 'a.b/c:1'))
  t.true(identityMatches({ type: 'exactReference', dockerReference: 'a.b/c:1' }, undefined, 'a.b/c:1'))
})

test('only the most specific scope counts', (t) => {
  const parsed = parseSignaturePolicy(
    JSON.stringify({
      default: [{ type: 'reject' }],
      transports: {
        docker: {
          'r.example/a/b': [{ type: 'insecureAcceptAnything' }],
          'r.example/a': [SIGSTORE],
          '*.example': [GPG_KEYED],
        },
      },
    }),
  )
  const place = (reference: string): string => requirementsFor(parsed, parseReference(reference)).place
  t.is(place('r.example/a/b:1'), 'docker["r.example/a/b"]')
  t.is(place('r.example/a/c:1'), 'docker["r.example/a"]')
  t.is(place('r.example/ab:1'), 'docker["*.example"]')
  t.is(place('example/ab:1'), 'default')
  t.is(place('r.example.evil/a/b:1'), 'default')
})

const GPG_KEYED = { ...GPG, keyData: 'AAAA' }

test('identity rules accept and refuse as containers-policy.json says', (t) => {
  const tagged = 'r.example/a/b:1'
  const digested = `r.example/a/b@sha256:${HEX}`
  const cases: readonly (readonly [IdentityRule, string, string, boolean])[] = [
    [{ type: 'matchExact' }, tagged, 'r.example/a/b:1', true],
    [{ type: 'matchExact' }, tagged, 'r.example/a/b:2', false],
    [{ type: 'matchExact' }, tagged, 'r.example/a/b', false],
    [{ type: 'matchExact' }, digested, digested, true],
    [{ type: 'matchExact' }, digested, 'r.example/a/b:1', false],
    [{ type: 'matchRepoDigestOrExact' }, tagged, 'r.example/a/b:1', true],
    [{ type: 'matchRepoDigestOrExact' }, tagged, 'r.example/a/b', false],
    // What cosign writes, a bare repository, satisfies no rule that is about versions.
    [{ type: 'matchRepoDigestOrExact' }, digested, 'r.example/a/b', false],
    [{ type: 'matchRepoDigestOrExact' }, digested, 'r.example/a/b:7', true],
    [{ type: 'matchRepoDigestOrExact' }, digested, `r.example/a/b@sha256:${HEX}`, true],
    [{ type: 'matchRepoDigestOrExact' }, digested, 'r.example/a/c:7', false],
    [{ type: 'matchRepoDigestOrExact' }, `r.example/a/b:1@sha256:${HEX}`, 'r.example/a/b:7', true],
    [{ type: 'matchRepository' }, tagged, 'r.example/a/b', true],
    [{ type: 'matchRepository' }, tagged, 'r.example/a', false],
    [{ type: 'exactReference', dockerReference: 'o.example/x:1' }, tagged, 'o.example/x:1', true],
    [{ type: 'exactReference', dockerReference: 'o.example/x:1' }, tagged, tagged, false],
    [{ type: 'exactRepository', dockerRepository: 'o.example/x' }, tagged, 'o.example/x:9', true],
    [{ type: 'exactRepository', dockerRepository: 'o.example/x' }, tagged, 'o.example/xy', false],
    [{ type: 'exactRepository', dockerRepository: 'nginx' }, tagged, 'docker.io/library/nginx', true],
    [{ type: 'remapIdentity', prefix: 'r.example', signedPrefix: 'o.example' }, tagged, 'o.example/a/b:1', true],
    [{ type: 'remapIdentity', prefix: 'r.example/a', signedPrefix: 'o.example/z' }, tagged, 'o.example/z/b:1', true],
    [{ type: 'remapIdentity', prefix: 'r.example/a', signedPrefix: 'o.example/z' }, tagged, tagged, false],
    // Not at a component's boundary: the name stays as it is.
    [{ type: 'remapIdentity', prefix: 'r.ex', signedPrefix: 'o.ex' }, tagged, 'o.example/a/b:1', false],
    [{ type: 'remapIdentity', prefix: 'r.ex', signedPrefix: 'o.ex' }, tagged, tagged, true],
    [{ type: 'matchRepository' }, tagged, 'not a reference', false],
    [{ type: 'matchRepository' }, tagged, '', false],
  ]
  for (const [rule, image, signed, expected] of cases) {
    t.is(identityMatches(rule, parseReference(image), signed), expected, `${JSON.stringify(rule)} ${image} ${signed}`)
  }
})
