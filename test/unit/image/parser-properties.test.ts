import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { openSecretbox, sealSecretbox } from '#image/node/secretbox'
import { parseCosignKey, readSigningKey } from '#image/node/signing-key'
import { parseChallenges } from '#image/registry/challenge'
import { parseRegistriesConf, routeBy } from '#image/registry/registries-conf'
import { parseSignatureBlob } from '#image/signature/blob'
import { parseBundle } from '#image/signature/bundle'
import { encodePayload, parsePayload } from '#image/signature/payload'
import { parseSigningKey } from '#image/signature/public-key'
import { lookasideFor, parseRegistriesD } from '#image/signature/registries-d'
import { parseHashedRekord, parseRekorSet } from '#image/signature/rekor-set'
import { isSource, parseStatement, provenanceOf } from '#image/signature/statement'
import { parseTrustedRoot } from '#image/signature/trusted-root'
import { parseCertificate } from '#image/signature/x509/certificate'
import { parsePem, parsePemCertificates } from '#image/signature/x509/pem'
import { formatReference, parseReference } from '#protocol/oci/reference'
import { encryptSigningKey } from '../../fixtures/encrypted-key.ts'
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

test('a key for signatures is in one PEM, and its kind is known, or it is refused', (t) => {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = String(publicKey.export({ type: 'spki', format: 'pem' }))
  refusesOrKeeps(
    t,
    damaged(pem),
    (input) => parseSigningKey(input, 'key'),
    ({ spki, scheme }) => spki[0] === 0x30 && ['ecdsa', 'rsa-pkcs1', 'ed25519'].includes(scheme),
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

const FIXTURES = join(import.meta.dirname, '../../vectors/image-sign/containers-image/signature/fixtures')
const text = (name: string): string => readFileSync(join(FIXTURES, name), 'utf8')
const encode = (value: string): Uint8Array => new TextEncoder().encode(value)

test('a signature in a file is of a known format, or refused', (t) => {
  const good = text('dir-img-cosign-key-rekor-valid/signature-1')
  t.is(parseSignatureBlob(encode(good), 'signature-1')?.kind, 'cosign')
  const inputs = fc.oneof(damaged(good).map(encode), fc.uint8Array({ maxLength: 64 }))
  refusesOrKeeps(
    t,
    inputs,
    (input) => parseSignatureBlob(input, 'signature-1'),
    (value, input) => value === undefined || (value.kind === 'openpgp') === (input[0] ?? 0) >= 0x80,
  )
})

test('a log entry and the promise about it are complete, or refused', (t) => {
  const good = text('rekor-set')
  const body = Buffer.from(JSON.parse(good).Payload.body, 'base64').toString()
  t.is(parseRekorSet(good, 'set').payload.logIndex, JSON.parse(good).Payload.logIndex)
  refusesOrKeeps(t, damaged(good), (input) => parseRekorSet(input, 'set'))
  refusesOrKeeps(
    t,
    damaged(body),
    (input) => parseHashedRekord(encode(input), 'entry'),
    ({ signer }) => signer[0] !== undefined,
  )
})

test('certificates are read as PEM of DER that is whole, or refused', (t) => {
  const good = text('fulcio-cert')
  const [der = new Uint8Array()] = parsePemCertificates(good, 'certificate')
  t.deepEqual(parseCertificate(der, 'certificate').der, der)
  refusesOrKeeps(
    t,
    damaged(good),
    (input) => parsePem(input, 'pem'),
    (blocks) => blocks.length > 0 && blocks.every(({ label }) => label !== ''),
  )
  const spoilt = fc.tuple(fc.nat(der.length - 1), fc.nat(255)).map(([at, byte]) => der.with(at, byte))
  const cut = fc.nat(der.length - 1).map((length) => der.subarray(0, length))
  refusesOrKeeps(t, spoilt, (input) => parseCertificate(input, 'certificate'))
  const accepted: number[] = []
  refusesOrKeeps(
    t,
    cut,
    (input) => parseCertificate(input, 'certificate'),
    (_, input) => accepted.push(input.length) < 0,
  )
  t.deepEqual(accepted, [])
})

const SIGSTORE = join(FIXTURES, '../../../sigstore-conformance')

test('a bundle is of a known version and complete, or refused', (t) => {
  const good = readFileSync(join(SIGSTORE, 'bundle-verify/happy-path-v0.3/bundle.sigstore.json'), 'utf8')
  t.is(parseBundle(encode(good), 'bundle').content.$case, 'messageSignature')
  refusesOrKeeps(
    t,
    damaged(good),
    (input) => parseBundle(encode(input), 'bundle'),
    ({ verificationMaterial }) => verificationMaterial.tlogEntries.every(({ logIndex }) => BigInt(logIndex) >= 0n),
  )
})

test('a trusted root says how long each of its keys is good for, or is refused', (t) => {
  const good = readFileSync(join(SIGSTORE, 'bundle-verify/invalid-ct-key_fail/trusted_root.json'), 'utf8')
  t.true(parseTrustedRoot(encode(good), 'root').tlogs.length > 0)
  refusesOrKeeps(
    t,
    damaged(good),
    (input) => parseTrustedRoot(encode(input), 'root'),
    ({ tlogs }) => tlogs.every(({ publicKey }) => publicKey?.validFor?.start instanceof Date),
  )
})

test('a statement names its type, and provenance says builder and sources of SLSA 0.2 and 1', (t) => {
  const good = readFileSync(join(SIGSTORE, 'statement.json'), 'utf8')
  const { builder, sources } = provenanceOf(parseStatement(encode(good), 'statement'))
  t.is(builder, 'https://github.com/loosebazooka/aa-test/.github/workflows/provenance.yaml@refs/heads/main')
  t.true(sources.some((source) => isSource(source, 'https://github.com/loosebazooka/aa-test')))
  t.false(sources.some((source) => isSource(source, 'https://github.com/loosebazooka/aa')))
  const old = { builder: { id: 'b' }, invocation: { configSource: { uri: 'git+https://a/b@refs/tags/v1' } } }
  const statement = { ...JSON.parse(good), predicate: old }
  const read = provenanceOf(parseStatement(encode(JSON.stringify(statement)), 'statement'))
  t.is(read.builder, 'b')
  t.true(read.sources.every((source) => isSource(source, 'https://a/b')))
  refusesOrKeeps(t, damaged(good), (input) => provenanceOf(parseStatement(encode(input), 'statement')))
})

const REGISTRIES_D = join(FIXTURES, '../../docker/fixtures/registries.d')
const IMAGE_RS = join(FIXTURES, '../../../image-rs/image-rs/test_data/signature/sigstore_config')
const yaml = (folder: string) =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.yaml'))
    .map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }))

test('registries.d: the most specific scope that has a lookaside, over all files, or a refusal', (t) => {
  const config = parseRegistriesD(yaml(REGISTRIES_D))
  const base = (reference: string) => lookasideFor(config, parseReference(reference))
  t.is(base('example.com/a:1'), 'https://lookaside.example.com')
  t.is(base('registry.test.example.com:8888/a:1'), 'http://registry.test.example.com:8889/lookaside')
  t.is(base('docker.io/centos/mybetaproduct:other'), 'http://localhost:9999/mybetaWIP/lookaside')
  t.is(base('docker.io/centos/mybetaproduct:latest'), 'https://lookaside.centos.org/')
  t.is(base('busybox:1'), 'file:///mnt/companywide/signatures/for/other/repositories')
  const [good = { name: '', text: '' }] = yaml(REGISTRIES_D).filter(({ name }) => name.startsWith('internal'))
  t.throws(
    () => parseRegistriesD([good, { name: 'again.yaml', text: good.text.replace('//lookaside.', '//other.') }]),
    { code: 'ERR_REGISTRIES_D' },
  )
  refusesOrKeeps(
    t,
    damaged(good.text),
    (text) => parseRegistriesD([{ name: 'a.yaml', text }]),
    ({ docker }) => [...docker.values()].every((url) => url !== ''),
  )
})

for (const number of [1, 2, 3]) {
  test(`registries.d of image-rs, case ${number}: files merge to what its own test states`, (t) => {
    const merged = parseRegistriesD(yaml(join(IMAGE_RS, `test_case_${number}`)))
    const result = join(IMAGE_RS, `merged_result/res${number}.yaml`)
    t.deepEqual(merged, parseRegistriesD([{ name: 'result', text: readFileSync(result, 'utf8') }]))
  })
}

test('keys that cosign encrypted open with their password; their parameters are bounded', (t) => {
  const folder = join(IMAGE_RS, '../cosign')
  const pem = readFileSync(join(folder, 'cosign2.key'), 'utf8')
  const opened = createPublicKey(readSigningKey(pem, ''))
  t.is(
    String(opened.export({ type: 'spki', format: 'pem' })).trim(),
    readFileSync(join(folder, 'cosign2.pub'), 'utf8').trim(),
  )
  t.throws(() => readSigningKey(pem, 'wrong'), { code: 'ERR_SIGNING_KEY_PASSWORD' })
  t.throws(() => readSigningKey(pem, undefined), { code: 'ERR_SIGNING_KEY_PASSWORD' })
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  t.true(readSigningKey(encryptSigningKey(privateKey, 'x'), 'x').equals(privateKey))
  const [, body = ''] = /KEY-----\n([\s\S]+)-----END/.exec(pem) ?? []
  const text = Buffer.from(body, 'base64').toString()
  const wrap = (inner: string): string => pem.replace(body, `${Buffer.from(inner).toString('base64')}\n`)
  t.is(parseCosignKey(wrap(text)).N, 32_768)
  refusesOrKeeps(
    t,
    damaged(text),
    (inner) => parseCosignKey(wrap(inner)),
    ({ N, r, p }) => N <= 1 << 20 && r <= 16 && p <= 16,
  )
})

test('a secretbox opens to what was sealed, and any changed bit closes it', (t) => {
  const [key, nonce] = [randomBytes(32), randomBytes(24)]
  const opensOnlyWhole = fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(), (plain, at) => {
    const box = sealSecretbox(key, nonce, plain)
    const spoilt = box.with(at % box.length, (box[at % box.length] ?? 0) ^ 1)
    return (
      Buffer.compare(openSecretbox(key, nonce, box) ?? randomBytes(1), plain) === 0 &&
      openSecretbox(key, nonce, spoilt) === undefined
    )
  })
  t.notThrows(() => fc.assert(opensOnlyWhole, { numRuns: 100 }))
})

test('registries.conf: the longest prefix rewrites a name at its boundary, mirrors come first, blocks refuse', (t) => {
  const good = readFileSync(join(FIXTURES, '../../../image-rs/image-rs/test_data/registry-configuration.toml'), 'utf8')
  const more = `
[[registry]]
prefix = "*.wild.example/team"
location = "home.example/wild"
[[registry]]
prefix = "deep.example/a/b"
location = "home.example"
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"
[[registry]]
prefix = "deep.example/a"
location = "wrong.example"
`
  const route = routeBy(parseRegistriesConf(good + more))
  const places = (name: string, byDigest = true) =>
    route(parseReference(name), byDigest).map(({ repository, plainHttp }) => [formatReference(repository), plainHttp])
  t.deepEqual(places('mirror-test.com/a/b:1'), [
    ['127.0.0.1:5000/a/b:1', true],
    ['mirror-test.com/a/b:1', false],
  ])
  t.deepEqual(places('remapping-test.com/a:1'), [['127.0.0.1:5000/a:1', true]])
  t.deepEqual(places('other.example/a:1'), [['other.example/a:1', false]])
  t.deepEqual(places('x.y.wild.example/team/app:1'), [['home.example/wild/app:1', false]])
  t.deepEqual(places('wild.example/team/app:1'), [['wild.example/team/app:1', false]])
  t.deepEqual(places('deep.example/a/b/c:1'), [['home.example/c:1', false]])
  t.deepEqual(places('deep.example/a/b/c:1', false), [
    ['tags.example/c:1', false],
    ['home.example/c:1', false],
  ])
  t.deepEqual(places('deep.example/a/bc:1'), [['wrong.example/bc:1', false]])
  t.throws(() => places('example.com/banned/app:1'), { code: 'ERR_REGISTRY_BLOCKED' })
  t.notThrows(() => places('example.com/bannedless:1'))
  t.throws(() => parseRegistriesConf('[registries.search]\nregistries = ["docker.io"]'), {
    code: 'ERR_REGISTRIES_CONF',
  })
  refusesOrKeeps(t, damaged(good + more), parseRegistriesConf, ({ registries }) =>
    registries.every(({ prefix, mirrors }) => prefix !== '' && mirrors.every(({ location }) => location !== '')),
  )
})
