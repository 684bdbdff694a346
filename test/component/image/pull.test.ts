import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import type { LayerEngine } from '#image/layer/engine'
import { generateSigningKey, signImage } from '#image/node/sign'
import type { SignaturePolicy } from '#image/policy/policy'
import type { PullProgress } from '#image/pull/progress'
import { type PulledImage, type PullOptions, pullImage } from '#image/pull/pull-image'
import { nodeCrypto } from '#protocol/node/crypto'
import { ACCEPT_ANYTHING, directory, file, pushLayers, signedBy, THREE_LAYERS } from './fixtures/image.ts'
import { testIndexer } from './fixtures/indexer.ts'
import { startRegistry, type TestRegistry } from './fixtures/registry.ts'
import { filesIn, layerStore, nativeEngine, workspace } from './fixtures/workspace.ts'

interface Scene {
  readonly folder: string
  readonly registry: TestRegistry
  readonly store: string
  readonly pull: (reference: string, options?: Partial<PullOptions>) => Promise<PulledImage>
}

async function scene(t: ExecutionContext): Promise<Scene> {
  const folder = await workspace(t)
  const registry = await startRegistry(t, join(folder, 'registry'))
  const store = join(folder, 'store')
  await mkdir(store)
  const base = {
    registry: registry.client(),
    signaturePolicy: ACCEPT_ANYTHING as SignaturePolicy | undefined,
    crypto: nodeCrypto,
    store: layerStore(store),
    engine: nativeEngine,
    indexer: await testIndexer(),
  }
  return { folder, registry, store, pull: (reference, options = {}) => pullImage({ ...base, reference, ...options }) }
}

test('an image is pulled by digest: layers of every compression, in order, each a tar and an index', async (t) => {
  const { folder, registry, store, pull } = await scene(t)
  const pushed = await pushLayers(registry, folder)
  const progress: PullProgress[] = []
  const image = await pull(pushed.reference, { onProgress: (event) => progress.push(event) })

  t.is(image.manifestDigest, pushed.digest)
  t.deepEqual(
    image.layers.map(({ diffId }) => diffId),
    [...image.config.diffIds],
  )
  t.is((await filesIn(store)).length, 2 * THREE_LAYERS.length + 1)
  const base = image.layers[0]
  t.true((await readFile(base?.tar.path ?? '')).includes('etc/name'))
  t.is(base?.tar.verity.salt, image.config.diffIds[0]?.slice(7))
  t.deepEqual(
    progress.slice(0, 2).map(({ type }) => type),
    ['resolved', 'judged'],
  )
  t.is(progress.filter((event) => event.type === 'layer' && event.state === 'done').length, 3)
})

test('a second pull of the same layers fetches none of them', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const pushed = await pushLayers(registry, folder)
  const first = await pull(pushed.reference)
  const states = new Set<string>()
  const second = await pull(pushed.reference, {
    onProgress: (event) => event.type === 'layer' && states.add(event.state),
  })
  t.deepEqual([...states], ['present'])
  t.deepEqual(second.layers, first.layers)
})

test('the same layer twice in one image is fetched once', async (t) => {
  const { folder, registry, store, pull } = await scene(t)
  const layer = { compression: 'gzip', entries: [file('a', 'a')] } as const
  const { reference } = await pushLayers(registry, folder, { layers: [layer, layer] })
  const image = await pull(reference)
  t.is(image.layers.length, 2)
  t.is(image.layers[0], image.layers[1])
  t.is((await filesIn(store)).length, 3)
})

const flip = (at: number) => (bytes: Buffer) => {
  const copy = Buffer.from(bytes)
  copy[at] = (copy[at] ?? 0) ^ 1
  return copy
}

for (const layer of THREE_LAYERS) {
  test(`a ${layer.compression} layer changed in the registry is refused, and nothing of it stays`, async (t) => {
    const { folder, registry, store, pull } = await scene(t)
    const pushed = await pushLayers(registry, folder, { layers: [layer] })
    const { digest, size } = pushed.layers[0] ?? { digest: '', size: 0 }
    // First block, middle, and end: by then most of the layer was decompressed and written.
    for (const at of [20, size >> 1, size - 6]) {
      await registry.tamper(digest, flip(at))
      const error = await t.throwsAsync(pull(pushed.reference))
      t.regex(codeOf(error), /^ERR_(?:DIGEST_MISMATCH|LAYER_CORRUPT|LAYER_TRUNCATED|LAYER_ENTRY)$/)
      t.deepEqual(await filesIn(store), [])
      await registry.tamper(digest, flip(at))
    }
    await t.notThrowsAsync(pull(pushed.reference))
  })
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''
}

test('a layer’s first bytes come while the last of the one before are worked on, and no more layers than that', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const pushed = await pushLayers(registry, folder)
  const second = Promise.withResolvers<void>()
  let opened = 0
  let open = 0
  let most = 0
  const engine: LayerEngine = {
    ...nativeEngine,
    openLayer: (options) => {
      const writer = nativeEngine.openLayer(options)
      opened++
      open++
      most = Math.max(most, open)
      if (opened === 2) second.resolve()
      return {
        write: (bytes) => writer.write(bytes),
        cancel: () => writer.cancel(),
        finish: async () => {
          await second.promise
          open--
          return await writer.finish()
        },
      }
    },
  }
  const image = await pull(pushed.reference, { engine, parallelLayers: 1 })
  t.is(image.layers.length, THREE_LAYERS.length)
  t.deepEqual([opened, open, most], [THREE_LAYERS.length, 0, 2])
})

test('a manifest changed in the registry is refused', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const pushed = await pushLayers(registry, folder)
  await registry.tamper(pushed.digest, (bytes) =>
    Buffer.from(bytes.toString().replace('"schemaVersion":2', '"schemaVersion":2 ')),
  )
  await t.throwsAsync(pull(pushed.reference), { code: 'ERR_DIGEST_MISMATCH' })
})

test('a configuration changed in the registry is refused', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const pushed = await pushLayers(registry, folder)
  const image = await pull(pushed.reference)
  await registry.tamper(image.configDigest, (bytes) => Buffer.from(bytes.toString().replace('/bin/true', '/bin/evil')))
  await t.throwsAsync(pull(pushed.reference), { code: 'ERR_DIGEST_MISMATCH' })
})

test('a configuration whose diff ids are not those of the layers is refused', async (t) => {
  const { folder, registry, store, pull } = await scene(t)
  const { writeImageLayout } = await import('#tools/nginx-image/layout')
  const { pushImage } = await import('#image/node/push')
  const layout = join(folder, 'lying')
  const layers = THREE_LAYERS.slice(0, 1)
  writeImageLayout(layout, { layers, config: {}, diffIds: [`sha256:${'0'.repeat(64)}`] })
  const pushed = await pushImage({ layout, reference: `${registry.host}/lying:1`, registry: registry.client() })
  const error = await t.throwsAsync(pull(pushed.reference), { code: 'ERR_DIGEST_MISMATCH' })
  t.regex(error?.message ?? '', /uncompressed content/)
  t.deepEqual(await filesIn(store), [])
})

test('an image without a signature is refused before any layer is fetched', async (t) => {
  const { folder, registry, store, pull } = await scene(t)
  const { reference } = await pushLayers(registry, folder)
  const seen: string[] = []
  const signaturePolicy = signedBy(generateSigningKey().publicPem)
  const onProgress = (event: PullProgress): void => void seen.push(event.type)
  await t.throwsAsync(pull(reference, { signaturePolicy, onProgress }), { code: 'ERR_IMAGE_UNSIGNED' })
  t.deepEqual(seen, ['resolved'])
  t.deepEqual(await filesIn(store), [])
})

test('without a policy no image is pulled', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const { reference } = await pushLayers(registry, folder)
  await t.throwsAsync(pull(reference, { signaturePolicy: undefined }), { code: 'ERR_IMAGE_POLICY_MISSING' })
})

test('the signature of the right key admits, that of another key does not', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const { reference } = await pushLayers(registry, folder)
  const [right, other] = [generateSigningKey(), generateSigningKey()]
  await signImage({ reference, registry: registry.client(), privatePem: other.privatePem })
  const signaturePolicy = signedBy(right.publicPem)
  await t.throwsAsync(pull(reference, { signaturePolicy }), { code: 'ERR_IMAGE_SIGNATURE' })
  await signImage({ reference, registry: registry.client(), privatePem: right.privatePem })
  const image = await pull(reference, { signaturePolicy })
  t.is(image.admittedBy, 'default')
})

test('a signature copied from another image of the same key is refused', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const key = generateSigningKey()
  const signed = await pushLayers(registry, folder)
  const { signatureTag } = await signImage({
    reference: signed.reference,
    registry: registry.client(),
    privatePem: key.privatePem,
  })
  const other = await pushLayers(registry, folder, { layers: [{ compression: 'gzip', entries: [file('other', 'x')] }] })
  const { uploadManifest } = await import('#image/node/upload')
  const { parseReference } = await import('#protocol/oci/reference')
  const client = registry.client()
  const repository = parseReference(`${registry.host}/team/app:${signatureTag}`)
  const { bytes } = await client.fetchManifest(repository)
  const version = `${other.digest.replace(':', '-')}.sig`
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  await uploadManifest({ registry: client, repository }, { bytes, mediaType, version })
  await t.throwsAsync(pull(other.reference, { signaturePolicy: signedBy(key.publicPem) }), {
    code: 'ERR_IMAGE_SIGNATURE',
  })
})

test('a blob shorter or longer than described is refused', async (t) => {
  const { folder, registry, store, pull } = await scene(t)
  const pushed = await pushLayers(registry, folder, { layers: THREE_LAYERS.slice(0, 1) })
  const { digest } = pushed.layers[0] ?? {}
  const cut = (bytes: Buffer): Buffer => bytes.subarray(0, -100)
  await registry.tamper(digest ?? '', cut)
  await t.throwsAsync(pull(pushed.reference), { code: 'ERR_BLOB_SIZE' })
  await registry.tamper(digest ?? '', (bytes) => Buffer.concat([bytes, Buffer.alloc(500)]))
  await t.throwsAsync(pull(pushed.reference), { code: 'ERR_BLOB_SIZE' })
  t.deepEqual(await filesIn(store), [])
})

test('a pull that is cancelled ends with the reason given, and leaves nothing behind', async (t) => {
  const { folder, registry, store, pull } = await scene(t)
  const { reference } = await pushLayers(registry, folder, { layers: THREE_LAYERS.slice(0, 1) })
  const abort = new AbortController()
  const reason = new Error('not wanted any more')
  const onProgress = (event: PullProgress): void => {
    if (event.type === 'layer' && event.state === 'fetching') abort.abort(reason)
  }
  t.is(await t.throwsAsync(pull(reference, { signal: abort.signal, onProgress })), reason)
  t.deepEqual(await filesIn(store), [])
})

test('a layer that expands beyond the limits ends early', async (t) => {
  const { folder, registry, store, pull } = await scene(t)
  const layers = [{ compression: 'gzip', entries: [file('zeros', new Uint8Array(40_000_000))] }] as const
  const { reference } = await pushLayers(registry, folder, { layers })
  await t.throwsAsync(pull(reference, { limits: { maxRatio: 100 } }), { code: 'ERR_LAYER_RATIO' })
  await t.throwsAsync(pull(reference, { limits: { maxLayerBytes: 20_000_000 } }), { code: 'ERR_LAYER_TOO_LARGE' })
  await t.throwsAsync(pull(reference, { limits: { maxImageBytes: 20_000_000 } }), { code: 'ERR_IMAGE_TOO_LARGE' })
  t.deepEqual(await filesIn(store), [])
})

test('layers that do not fit together are refused with layer, entry and reason, and no index of them stays', async (t) => {
  const { folder, registry, store, pull } = await scene(t)
  const link = { path: 'link', type: 'hardlink', mode: 0o644, target: 'etc/shadow' } as const
  const { reference } = await pushLayers(registry, folder, { layers: [{ compression: 'gzip', entries: [link] }] })
  const error = await t.throwsAsync(pull(reference), { code: 'ERR_LAYER_INDEX' })
  t.regex(error?.message ?? '', /layer 1: entry "link": it is a hard link to what neither/)
  // The layer is what its digests say, and may serve another image.
  t.deepEqual(
    (await filesIn(store)).filter((name) => name.endsWith('.erofs')),
    [],
  )
})

test('a registry whose certificate is of another authority gets no request', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const { reference } = await pushLayers(registry, folder)
  const stranger = await startRegistry(t, join(folder, 'stranger'))
  const options = { registry: stranger.client() }
  await t.throwsAsync(pull(reference, options), { code: 'ERR_HTTP_TLS' })
})

test('more than one platform: the index is followed to the one that fits', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const pushed = await pushLayers(registry, folder, { layers: [{ compression: 'gzip', entries: [directory('a')] }] })
  const client = registry.client()
  const { uploadManifest } = await import('#image/node/upload')
  const { parseReference } = await import('#protocol/oci/reference')
  const repository = parseReference(pushed.reference)
  const { bytes: inner } = await client.fetchManifest(repository)
  const entry = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: pushed.digest,
    size: inner.byteLength,
  }
  const mediaType = 'application/vnd.oci.image.index.v1+json'
  const index = {
    schemaVersion: 2,
    mediaType,
    manifests: [
      { ...entry, platform: { os: 'linux', architecture: 'arm64' } },
      { ...entry, platform: { os: 'linux', architecture: 'amd64' } },
    ],
  }
  const bytes = new TextEncoder().encode(JSON.stringify(index))
  const digest = await uploadManifest({ registry: client, repository }, { bytes, mediaType, version: 'multi' })
  const name = `${registry.host}/team/app`
  const key = generateSigningKey()
  await signImage({ reference: `${name}:multi`, registry: client, privatePem: key.privatePem })
  const image = await pull(`${name}:multi`, { signaturePolicy: ACCEPT_ANYTHING })
  t.is(image.manifestDigest, pushed.digest)
  t.is(image.indexDigest, digest)
  // A signature over the index vouches for the manifest that the index names.
  await t.notThrowsAsync(pull(`${name}@${digest}`, { signaturePolicy: signedBy(key.publicPem) }))
})
