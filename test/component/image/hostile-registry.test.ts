/** A registry, and an author of layers, who try everything that a pull must refuse; nothing of it may stay behind. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { generateSigningKey, signImage } from '#image/node/sign'
import { uploadBlob, uploadManifest } from '#image/node/upload'
import { parseSignaturePolicy } from '#image/policy/parse'
import { type PulledImage, type PullOptions, pullImage } from '#image/pull/pull-image'
import { nodeCrypto } from '#protocol/node/crypto'
import { computeDigest } from '#protocol/oci/digest'
import { parseReference } from '#protocol/oci/reference'
import { encodeTar } from '#tools/nginx-image/tar'
import { ACCEPT_ANYTHING, file, pushLayers, signedBy, THREE_LAYERS } from './fixtures/image.ts'
import { testIndexer } from './fixtures/indexer.ts'
import { mountImage } from './fixtures/mount.ts'
import { startRegistry, type TestRegistry } from './fixtures/registry.ts'
import { listTree } from './fixtures/tree.ts'
import { filesIn, layerStore, nativeEngine, workspace } from './fixtures/workspace.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const ONE_LAYER = THREE_LAYERS.slice(0, 1)

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
    signaturePolicy: ACCEPT_ANYTHING,
    crypto: nodeCrypto,
    store: layerStore(store),
    engine: nativeEngine,
    indexer: await testIndexer(),
  }
  return { folder, registry, store, pull: (reference, options = {}) => pullImage({ ...base, reference, ...options }) }
}

/** Stores a manifest under a tag or digest, as whoever owns the registry may. */
async function store(registry: TestRegistry, name: string, bytes: Uint8Array, version: string, mediaType = MANIFEST) {
  const repository = parseReference(`${registry.host}/${name}:x`)
  return await uploadManifest({ registry: registry.client(), repository }, { bytes, mediaType, version })
}

test('an index changed in the registry is refused', async (t) => {
  const { folder, registry, pull, store: kept } = await scene(t)
  const pushed = await pushLayers(registry, folder, { layers: ONE_LAYER })
  const { bytes } = await registry.client().fetchManifest(parseReference(pushed.reference))
  const platform = { os: 'linux', architecture: 'amd64' }
  const manifests = [{ mediaType: MANIFEST, digest: pushed.digest, size: bytes.byteLength, platform }]
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests }))
  const digest = await store(registry, 'team/app', index, 'multi', INDEX)
  const reference = `${registry.host}/team/app@${digest}`
  await t.notThrowsAsync(pull(reference))
  await registry.tamper(digest, (old) => Buffer.from(old.toString().replace('"amd64"', '"arm64"')))
  await t.throwsAsync(pull(reference), { code: 'ERR_DIGEST_MISMATCH' })
  t.is((await filesIn(kept)).length, 3, 'what the first pull kept, and no more')
})

test('a tag moved after signing brings in nothing unsigned, and the digest still names what was signed', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const key = generateSigningKey()
  const keyData = Buffer.from(key.publicPem).toString('base64')
  const rule = { type: 'sigstoreSigned', keyData, signedIdentity: { type: 'matchRepository' } }
  const signaturePolicy = parseSignaturePolicy(JSON.stringify({ default: [rule] }))
  const signed = await pushLayers(registry, folder, { layers: ONE_LAYER })
  const tag = `${registry.host}/team/app:1`
  await signImage({ reference: tag, registry: registry.client(), privatePem: key.privatePem })
  t.is((await pull(tag, { signaturePolicy })).manifestDigest, signed.digest)
  const moved = await pushLayers(registry, folder, { layers: [{ compression: 'gzip', entries: [file('evil', 'x')] }] })
  t.not(moved.digest, signed.digest)
  await t.throwsAsync(pull(tag, { signaturePolicy }), { code: 'ERR_IMAGE_UNSIGNED' })
  t.is((await pull(signed.reference, { signaturePolicy })).manifestDigest, signed.digest)
})

test('a signature for another repository is refused, although key and image are the same', async (t) => {
  const { folder, registry, pull, store: kept } = await scene(t)
  const key = generateSigningKey()
  const signed = await pushLayers(registry, folder, { layers: ONE_LAYER, name: 'team/test' })
  const { signatureTag } = await signImage({
    reference: signed.reference,
    registry: registry.client(),
    privatePem: key.privatePem,
  })
  const copied = await pushLayers(registry, folder, { layers: ONE_LAYER, name: 'team/production' })
  t.is(copied.digest, signed.digest)
  const client = registry.client()
  const signature = await client.fetchManifest(parseReference(`${registry.host}/team/test:${signatureTag}`))
  // The signature's blobs first: a registry refuses a manifest whose blobs it does not have.
  await signImage({ reference: copied.reference, registry: client, privatePem: generateSigningKey().privatePem })
  const payloads = JSON.parse(Buffer.from(signature.bytes).toString()) as { config: Blob; layers: Blob[] }
  for (const blob of [payloads.config, ...payloads.layers]) await copyBlob(registry, blob)
  await store(registry, 'team/production', signature.bytes, signatureTag)
  await t.throwsAsync(pull(copied.reference, { signaturePolicy: signedBy(key.publicPem) }), {
    code: 'ERR_IMAGE_IDENTITY',
    message: /team\/test/,
  })
  t.deepEqual(await filesIn(kept), [])
})

interface Blob {
  readonly digest: string
  readonly size: number
  readonly mediaType: string
}

/** Mounts a blob of team/test into team/production, as distribution-spec 1.1 lets the owner of both do. */
async function copyBlob(registry: TestRegistry, { digest }: Blob): Promise<void> {
  const response = await registry.client().call({
    method: 'POST',
    repository: parseReference(`${registry.host}/team/production:x`),
    path: `blobs/uploads/?mount=${digest}&from=team/test`,
    actions: 'pull,push',
    headers: { 'content-length': '0' },
    signal: undefined,
  })
  for await (const _ of response.body);
  if (response.status !== 201) throw new Error(`mounting ${digest}: status ${response.status}`)
}

test('a registry that speaks plain HTTP is refused before it is told what is wanted', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const { reference } = await pushLayers(registry, folder, { layers: ONE_LAYER })
  const heard: Buffer[] = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}))
    socket.on('data', (chunk) => {
      heard.push(chunk)
      socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}')
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  await t.throwsAsync(pull(reference.replace(`:${registry.port}/`, `:${port}/`)), { code: 'ERR_HTTP_TLS' })
  t.false(Buffer.concat(heard).includes('team/app'))
})

test('absolute names, and links that lead out, stay below the root of the layer', async (t) => {
  const { folder, registry, pull } = await scene(t)
  const entries = [
    file('/etc/absolute', 'inside'),
    { path: 'up', type: 'symlink', mode: 0o777, target: '../../../../etc/shadow' },
    { path: 'root', type: 'symlink', mode: 0o777, target: '/' },
  ] as const
  const { reference } = await pushLayers(registry, folder, { layers: [{ compression: 'gzip', entries }] })
  const image = await pull(reference)
  const names = JSON.stringify(listTree(mountImage(t, folder, image)))
  t.true(names.includes('etc/absolute'), names)
  // The links are there as text; who follows them inside a container stays in the container.
  t.true(names.includes('../../../../etc/shadow'))
})

test('a layer of a few kilobytes that unpacks to 10 GB is refused early, and leaves nothing', async (t) => {
  const { folder, registry, pull, store: kept } = await scene(t)
  const pushed = await pushLayers(registry, folder, { layers: [{ compression: 'zstd', entries: [file('a', 'a')] }] })
  const bomb = zstdBomb(10 * 1024)
  t.true(bomb.byteLength < 2_000_000, `${bomb.byteLength} bytes`)
  const reference = await pushBlobAsLayer(registry, pushed.reference, bomb)
  const before = performance.now()
  await t.throwsAsync(pull(reference), { code: 'ERR_LAYER_RATIO' })
  t.log(`refused after ${Math.round(performance.now() - before)} ms`)
  t.deepEqual(await filesIn(kept), [])
})

test('a gzip layer of 10 GB ends at the bound on its size, whatever its ratio', async (t) => {
  const { folder, registry, pull, store: kept } = await scene(t)
  const pushed = await pushLayers(registry, folder, { layers: [{ compression: 'gzip', entries: [file('a', 'a')] }] })
  const reference = await pushBlobAsLayer(registry, pushed.reference, gzipBomb(10 * 1024))
  await t.throwsAsync(pull(reference, { limits: { maxLayerBytes: 64 * 1024 * 1024 } }), { code: 'ERR_LAYER_TOO_LARGE' })
  t.deepEqual(await filesIn(kept), [])
})

test('a layer that the disk has no room for is refused, and makes room again', async (t) => {
  const { folder, registry, pull, store: kept } = await scene(t)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', kept])
  t.teardown(() => void execFileSync('umount', ['--lazy', kept]))
  const pushed = await pushLayers(registry, folder, { layers: [{ compression: 'gzip', entries: [file('a', 'a')] }] })
  const error = await t.throwsAsync<Error & { hint?: string }>(
    pull(await pushBlobAsLayer(registry, pushed.reference, gzipBomb(10 * 1024))),
    { code: 'ERR_LAYER_DISK_FULL' },
  )
  t.regex(error?.hint ?? '', /larger/)
  t.deepEqual(await filesIn(kept), [])
  await t.notThrowsAsync(pull(pushed.reference))
})

/** A tar of two files that together hold `mib` MiB of zeros, compressed in pieces: both formats may be concatenated. */
function bomb(mib: number, compress: (bytes: Uint8Array) => Uint8Array): Buffer {
  const piece = compress(new Uint8Array(64 * 1024 * 1024))
  const half = mib / 2
  const head = (name: string): Uint8Array => {
    const block = Buffer.from(encodeTar([file(name, 'x')]).subarray(0, 512))
    block.write((half * 1024 * 1024).toString(8).padStart(11, '0'), 124)
    block.fill(' ', 148, 156)
    const sum = block.reduce((total, byte) => total + byte, 0)
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
    return compress(block)
  }
  const content = Array.from({ length: half / 64 }, () => piece)
  return Buffer.concat([head('a'), ...content, head('b'), ...content, compress(new Uint8Array(1024))])
}

const zstdBomb = (mib: number): Buffer => bomb(mib, zstdCompressSync)
const gzipBomb = (mib: number): Buffer => bomb(mib, (bytes) => gzipSync(bytes, { level: 9 }))

/** The image again with other bytes as its layer, everything described as it is but the diff id, which comes too late. */
async function pushBlobAsLayer(registry: TestRegistry, reference: string, layer: Buffer): Promise<string> {
  const client = registry.client()
  const repository = parseReference(reference)
  const { bytes } = await client.fetchManifest(repository)
  const manifest = JSON.parse(Buffer.from(bytes).toString()) as { layers: Record<string, unknown>[] }
  const name = computeDigest(nodeCrypto, layer)
  await uploadBlob({ registry: client, repository }, { digest: name, size: layer.byteLength, read: () => layer })
  manifest.layers = [{ ...manifest.layers[0], digest: name, size: layer.byteLength }]
  const stored = await store(registry, 'team/app', Buffer.from(JSON.stringify(manifest)), 'bomb')
  return `${registry.host}/team/app@${stored}`
}
