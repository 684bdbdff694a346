import test from 'ava'
import fc from 'fast-check'
import { parseImageConfig } from '#image/manifest/config'
import { type ImageIndex, parseManifest } from '#image/manifest/manifest'
import { LINUX_AMD64, selectPlatform } from '#image/manifest/platform'
import { bytes, sha256 } from './fixtures.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip'

function descriptor(more: object = {}): object {
  return { mediaType: GZIP, digest: sha256('x'), size: 1, ...more }
}

function manifest(more: object = {}): object {
  const config = descriptor({ mediaType: 'application/vnd.oci.image.config.v1+json' })
  return { schemaVersion: 2, mediaType: MANIFEST, config, layers: [descriptor()], ...more }
}

function parse(document: unknown, expected?: string) {
  return parseManifest(bytes(JSON.stringify(document)), 'test', expected)
}

test('a manifest is read with its layers in order; members of the future are no harm', (t) => {
  const parsed = parse(
    manifest({ layers: [descriptor({ size: 1 }), descriptor({ size: 2, newMember: [] })], somethingNew: {} }),
  )
  t.is(parsed.kind, 'manifest')
  if (parsed.kind === 'manifest') {
    t.deepEqual(
      parsed.layers.map(({ size }) => size),
      [1, 2],
    )
  }
})

test('a manifest without mediaType is what it was described as, or what its members say', (t) => {
  const { mediaType: _, ...bare } = manifest() as { mediaType: string }
  t.is(parse(bare).mediaType, MANIFEST)
  const docker = 'application/vnd.docker.distribution.manifest.v2+json'
  t.is(parse(bare, docker).mediaType, docker)
  t.is(parse({ schemaVersion: 2, manifests: [] }).mediaType, INDEX)
})

test('a document that is two things at once, or not what it was described as, is refused', (t) => {
  t.throws(() => parse(manifest({ manifests: [] })), { code: 'ERR_IMAGE_DOCUMENT' })
  t.throws(() => parse({ ...manifest(), mediaType: INDEX }), { code: 'ERR_IMAGE_MEDIA_TYPE' })
  t.throws(() => parse(manifest(), INDEX), { code: 'ERR_IMAGE_MEDIA_TYPE' })
  t.throws(() => parse({ schemaVersion: 1, fsLayers: [] }), { code: 'ERR_IMAGE_MEDIA_TYPE' })
  t.throws(() => parse(manifest({ mediaType: 'text/plain' })), { code: 'ERR_IMAGE_MEDIA_TYPE' })
  t.throws(() => parseManifest(bytes('{"schemaVersion":2,"layers":[],"layers":[]}'), 'test'), { code: 'ERR_JSON' })
})

test('descriptors must be whole', (t) => {
  const bad = [
    { size: -1 },
    { size: 1.5 },
    { size: '1' },
    { size: 1e300 },
    { size: undefined },
    { digest: 'sha256:abc' },
    { digest: undefined },
    { mediaType: 'nonsense' },
    { mediaType: undefined },
    { annotations: { a: 1 } },
    { annotations: [] },
    { platform: {} },
  ]
  for (const more of bad) {
    const error = t.throws(() => parse(manifest({ layers: [descriptor(more)] })), undefined, JSON.stringify(more))
    t.regex((error as { code?: string }).code ?? '', /^ERR_(?:IMAGE_DESCRIPTOR|DIGEST)$/)
  }
  t.notThrows(() => parse(manifest({ layers: [descriptor({ annotations: null })] })))
})

test('no input makes the parser throw anything but its own errors', (t) => {
  const codes = new Set([
    'ERR_JSON',
    'ERR_IMAGE_DOCUMENT',
    'ERR_IMAGE_DESCRIPTOR',
    'ERR_DIGEST',
    'ERR_IMAGE_MEDIA_TYPE',
  ])
  const text = JSON.stringify(manifest())
  let refused = 0
  fc.assert(
    fc.property(fc.nat(text.length), fc.string({ maxLength: 3 }), fc.nat(5), (at, insert, remove) => {
      try {
        parseManifest(bytes(text.slice(0, at) + insert + text.slice(at + remove)), 'test')
      } catch (error) {
        refused++
        t.true(codes.has((error as { code?: string }).code ?? ''), String(error))
      }
    }),
    { numRuns: 500 },
  )
  t.true(refused > 0)
})

test('the platform is chosen by os and architecture, never a variant that needs more', (t) => {
  const entry = (os: string, architecture: string, more: object = {}): object =>
    descriptor({ mediaType: MANIFEST, platform: { os, architecture }, ...more })
  const index = (manifests: readonly object[]): ImageIndex => {
    const parsed = parse({ schemaVersion: 2, mediaType: INDEX, manifests })
    if (parsed.kind !== 'index') throw new Error('not an index')
    return parsed
  }
  const v3 = { platform: { os: 'linux', architecture: 'amd64', variant: 'v3' }, size: 3 }
  const chosen = selectPlatform(
    index([
      entry('windows', 'amd64'),
      entry('linux', 'arm64'),
      descriptor({ mediaType: MANIFEST }),
      entry('linux', 'amd64', v3),
      entry('linux', 'amd64', { size: 7 }),
    ]),
    LINUX_AMD64,
    'test',
  )
  t.is(chosen.size, 7)
  const none = index([entry('linux', 'arm64'), entry('linux', 'amd64', v3)])
  t.throws(() => selectPlatform(none, LINUX_AMD64, 'test'), { code: 'ERR_IMAGE_PLATFORM', message: /linux\/arm64/ })
})

function config(run: object | null, more: object = {}): Uint8Array {
  const document = {
    architecture: 'amd64',
    os: 'linux',
    config: run,
    rootfs: { type: 'layers', diff_ids: [sha256('a')] },
  }
  return bytes(JSON.stringify({ ...document, ...more }))
}

test('a configuration is read whole, with what Go writes for absence', (t) => {
  const parsed = parseImageConfig(
    config({
      User: '1000:1000',
      ExposedPorts: { '80/tcp': {} },
      Env: ['A=1', 'B=', 'C=x=y'],
      Entrypoint: ['a', ''],
      Cmd: null,
      WorkingDir: '',
      Volumes: { '/data/': {}, '/var//lib/./db': {}, '/data': {} },
      Labels: { x: 'y' },
      StopSignal: 'SIGQUIT',
      Healthcheck: { Test: [] },
    }),
    'test',
  )
  t.is(parsed.user, '1000:1000')
  t.deepEqual(parsed.exposedPorts, ['80/tcp'])
  t.deepEqual(parsed.env, ['A=1', 'B=', 'C=x=y'])
  t.deepEqual(parsed.entrypoint, ['a', ''])
  t.deepEqual(parsed.cmd, [])
  t.is(parsed.workingDir, '/')
  t.deepEqual(parsed.volumes, ['/data', '/var/lib/db'])
  t.is(parsed.labels.get('x'), 'y')
  t.is(parsed.stopSignal, 'SIGQUIT')
  t.deepEqual(parsed.diffIds, [sha256('a')])
  t.deepEqual(parseImageConfig(config(null), 'test').env, [])
})

test('a configuration that would mislead whoever builds a process from it is refused', (t) => {
  const refused: readonly Uint8Array[] = [
    config({ Env: ['NOVALUE'] }),
    config({ Env: ['=x'] }),
    config({ Env: 'A=1' }),
    config({ Env: ['A=\0'] }),
    config({ Entrypoint: ['a\0b'] }),
    config({ Entrypoint: 'sh' }),
    config({ User: 0 }),
    config({ WorkingDir: 'relative' }),
    config({ WorkingDir: '/a/../..' }),
    config({ Volumes: { relative: {} } }),
    config({ Volumes: { '/': {} } }),
    config({ Volumes: { '/a/../../b': {} } }),
    config({ Volumes: Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`/v${index}`, {}])) }),
    config({ Labels: { a: 1 } }),
    config({}, { rootfs: { type: 'other', diff_ids: [] } }),
    config({}, { rootfs: undefined }),
    config({ Env: Array.from({ length: 5000 }, () => 'A=1') }),
  ]
  for (const bad of refused) t.throws(() => parseImageConfig(bad, 'test'), { code: 'ERR_IMAGE_DOCUMENT' })
  t.throws(() => parseImageConfig(config({}, { rootfs: { type: 'layers', diff_ids: ['x'] } }), 'test'), {
    code: 'ERR_DIGEST',
  })
})
